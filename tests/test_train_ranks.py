"""`clipseg train` under torchrun: two real processes on the CPU learn what one learns, and one of them writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_trees import (  # noqa: F401
    TRAIN,
    WORDS,
    compute_in_double,
    copy_run,
    copy_tree,
    edit_manifest,
    free_run,
    session_tree,
    short_config,
    train,
)

from clipseg_cli.inference.dataset import list_hash
from clipseg_cli.runs.manifest import read_manifest
from clipseg_cli.training.hyperparameters import resolve_hyperparameters
from clipseg_cli.training.log import read_log, read_validation

RANK = """
import json, os, sys
from contextlib import nullcontext
from pytest import MonkeyPatch
from clipseg_cli.cli.main import main
from clipseg_cli.commands import train# loads all there is to load
from clipseg_cli.training import batches

tests, out, *words = sys.argv[1:]
sys.path.append(tests)
from training_trees import compute_in_double
rank = os.environ["RANK"]
written, seen = [], []

def watch(event, args):
    if event != "open" or not args[2] & (os.O_WRONLY | os.O_RDWR):
        return
    path = str(args[0])
    # The locks are of both; and a folder is "written" to see whether one may.
    if path.startswith(f"{out}/runs/") and "/.lock" not in path and not os.path.isdir(path):
        written.append(path)
sys.addaudithook(watch)

follow = batches.Batches.__next__
def noted(self):
    batch = follow(self)
    seen.append(batch.images.double().sum(dim=(1, 2, 3)).tolist())
    return batch
batches.Batches.__next__ = noted

codes = []
with train.rendezvous(train.process_share()):
    train.rendezvous = lambda share, *, cuda: nullcontext()  # processes can meet only once
    for number, command in enumerate(" ".join(words).split(" ; ")):
        with MonkeyPatch.context() as patch:
            if number == 0:
                compute_in_double(patch.setattr)
            try:
                main(command.split())
            except SystemExit as error:
                codes.append(error.code)
with open(f"{out}/rank{rank}.json", "w") as file:
    json.dump({"codes": codes, "written": written, "seen": seen}, file)
"""
LONG = (
    *("--batch-size", "4", "--validate-every", "2", "--checkpoint-every", "2"),
    *("--preset", "voc", "--short-side", "0"),
)
SGD = {"preset": "voc", "short_side": 0}
"""An optimiser of the kind of Adam would make much of the last digits of small gradients."""


def few(label_run, tmp_path):
    """A run that lists one picture alone."""
    folder = copy_run(label_run, tmp_path / "few")
    manifest = read_manifest(folder)
    assert manifest is not None
    root = manifest.identity["dataset"]["root"]
    split = tmp_path / "one.txt"
    split.write_text("2012_000002\n")
    from clipseg_cli.data.datasets import open_dataset

    samples = open_dataset(root, split=str(split)).samples
    edit_manifest(folder, dataset={"split": str(split), "images": 1, "images_sha256": list_hash(samples)})
    return folder


def spoilt(label_run, tree, tmp_path):
    """A run one of whose pictures is unreadable, and its name: the third of the first batch, so of the second rank."""
    data = copy_tree(tree, tmp_path / "spoilt-voc")
    name = TRAIN[np.random.default_rng([0, 0]).permutation(len(TRAIN))[2]]
    (data / "JPEGImages" / f"{name}.jpg").write_bytes(b"")
    return copy_run(label_run, tmp_path / "spoilt", data), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory, label_run):
    """The same run by one process."""
    options = {**SGD, "batch_size": 4, "validate_every": 2, "checkpoint_every": 2}
    with pytest.MonkeyPatch.context() as patch:
        compute_in_double(patch.setattr)
        return train(short_config(labels=str(label_run), out=tmp_path_factory.mktemp("alone"), **options))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, label_run, tree, start_torchrun, alone):
    """What two processes did, in turn: a run in double precision, one over one image, the same again, one with an
    unreadable image.

    They need no CLIP, since `alone` has left the embeddings of all words in the cache.
    """
    out = tmp_path_factory.mktemp("ranks")
    first = ("train", "--labels", label_run, *WORDS, *LONG, "--out", out / "runs", "--name", "two")
    one = ("train", "--labels", few(label_run, out), *WORDS, "--out", out / "runs", "--name", "one")
    bad, name = spoilt(label_run, tree, out)
    short = ("--batch-size", "4", "--iterations", "1", "--guided", "1")
    third = ("train", "--labels", bad, *WORDS, *short, "--out", out / "runs", "--name", "bad")
    words = (*first, ";", *one, ";", *one, "--resume", ";", *third)
    script = out / "rank.py"
    script.write_text(RANK)
    started = start_torchrun(script, Path(__file__).parent, out, *words, cwd=out)
    try:
        err = started.communicate(timeout=90)[1].decode()
    finally:
        started.terminate()  # torchrun ends its ranks then
        started.wait()
    assert started.returncode == 0, err
    return out, err, [json.loads((out / f"rank{i}.json").read_text()) for i in range(2)], name


def test_two_ranks_learn_what_one_learns(ranks, alone):
    """Batch statistics and gradients are those of the whole batch; the sums only round in another way.

    In double precision, where that means nothing. In single, one value that rounds to the other side of a ReLU's zero
    makes other gradients: five of twelve seeds had one, on two and on one thread of the same CPU.
    """
    folder = ranks[0] / "runs/two"
    losses = [step.loss for step in read_log(folder)]
    assert losses == pytest.approx(alone.losses, rel=1e-6)
    assert [s.stage for s in read_log(folder)] == ["guided"] * 2 + ["self-training"] * 2
    assert [s.labelled for s in read_log(folder)] == pytest.approx([s.labelled for s in alone.steps])
    assert len({*losses}) == 4
    scores = [v.miou for v in read_validation(folder)]
    assert scores == pytest.approx([v.miou for v in alone.validations], abs=0.02)
    assert [v.images for v in read_validation(folder)] == [2, 2]
    for name in ("student.safetensors", "optimiser.safetensors"):
        (ours,) = folder.glob(f"checkpoints/last-*/{name}")
        (theirs,) = alone.folder.glob(f"checkpoints/last-*/{name}")
        mine, expected = load_file(ours), load_file(theirs)
        assert mine.keys() == expected.keys()
        for key, tensor in mine.items():
            torch.testing.assert_close(tensor, expected[key], rtol=1e-8, atol=1e-10, msg=f"{name}: {key}")


def test_the_weights_move_far_more_than_the_tolerance(alone, label_run, tmp_path):
    """Else the test above would say nothing."""
    start = train(short_config(**SGD, labels=str(label_run), out=tmp_path, iterations=1, lr=1e-9)).weights
    moved = [(alone.weights[k] - v).abs().max().item() for k, v in start.items() if v.is_floating_point()]
    assert np.mean(np.array(moved) > 1e-3) > 0.5


def test_the_batches_are_those_of_one_process(ranks, label_run, tmp_path, monkeypatch):
    from clipseg_cli.training import batches

    seen, follow = [], batches.Batches.__next__

    def noted(self):
        batch = follow(self)
        seen.append(batch.images.double().sum(dim=(1, 2, 3)).tolist())
        return batch

    monkeypatch.setattr(batches.Batches, "__next__", noted)
    train(short_config(**SGD, labels=str(label_run), out=tmp_path, batch_size=4))
    joined = [a + b for a, b in zip(*(rank["seen"] for rank in ranks[2]), strict=True)]
    assert joined[:4] == seen


def test_only_the_first_rank_writes_and_speaks(ranks):
    out, err, (first, second), _ = ranks
    assert first["codes"][:3] == second["codes"][:3] == [0, 0, 0]
    assert first["written"] and second["written"] == []
    folder = out / "runs/two"
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert sorted(p.name for p in (folder / "checkpoints").glob("last*")) == ["last-0000004"]
    assert not list(folder.rglob(".*"))
    assert err.count("iteration 4 of 4") == 2  # two runs, one line each
    assert err.count("4 iterations in ") == 2
    assert "FutureWarning" not in err and "UserWarning" not in err
    assert err.count(f"Note: nothing is left to do: {out / 'runs/one'} is finished") == 1


def test_more_ranks_than_pictures_are_told(ranks):
    out, err, *_ = ranks
    said = err.count("Note: there are more processes (2) than images (1): every batch repeats some")
    assert said == 2  # each time it is started
    assert len(read_log(out / "runs/one")) == 4


def test_what_another_rank_could_not_read_is_told(ranks):
    out, err, (first, second), name = ranks
    assert [first["codes"][3], second["codes"][3]] == [1, 0]
    assert err.count(f"Note: {name} is left out: ") == err.count("Error: 1 image could not be used") == 1
    manifest = read_manifest(out / "runs/bad")
    assert manifest is not None and list(manifest.result["failures"]) == [name]


def test_a_batch_that_ranks_cannot_share_is_refused_before_they_meet(cli, label_run, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    words = ("train", "--labels", label_run, *WORDS, "--out", tmp_path / "out")
    done = cli(*words)
    assert done.code == 2
    assert "Error: a batch of 2 cannot be divided into 3 processes" in done.err
    assert "Hint: use --batch-size 3" in done.err
    assert not (tmp_path / "out").exists()
    assert resolve_hyperparameters(short_config(batch_size=3), None, 3).batch_size == 3
