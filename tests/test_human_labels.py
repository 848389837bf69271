"""Labels of humans stay, whoever labels or learns afterwards, and tell how good the machine's were."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from annotated import result_of, write
from corrected import contents, labelled, maps
from PIL import Image
from run_folders import make_photos, run_command, run_folder  # noqa: F401
from training_trees import (  # noqa: F401
    copy_run,
    free_run,
    session_tree,
    short_training,
    zero_shot_run,
)

from clipseg_cli.commands.train import open_training
from clipseg_cli.config import UNLABELLED, TrainConfig
from clipseg_cli.errors import RunError
from clipseg_cli.ops.bootstrap import bootstrap_scores
from clipseg_cli.ops.losses import segmentation_loss
from clipseg_cli.runs.human import human_labels, machine_file, read_human
from clipseg_cli.training.batches import Batch
from clipseg_cli.training.hyperparameters import resolve_hyperparameters
from clipseg_cli.training.targets import BOTH, Targets
from clipseg_cli.training.task import open_task

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("-c", "cat,dog,cow", "--background", "none", "--templates", "single")
WITH_WORDS = ("--classes", "cat,dog,cow", "--background", "none")


def plain(folder: Path, **named: np.ndarray) -> list[Path]:
    """Plain label PNGs, by the names of their images; __ is a slash."""
    paths = []
    for name, labels in named.items():
        path = folder / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels.astype(np.uint8)).save(path)
        paths.append(path)
    return paths


def other(labels: np.ndarray, classes: int = 3) -> np.ndarray:
    """Another map: a block in the middle has the next class."""
    found = labels.copy()
    rows, columns = (slice(side // 4, side // 2) for side in labels.shape)
    found[rows, columns] = (found[rows, columns] + 1) % classes
    return found


# Labelling again.


def test_segment_keeps_them_and_makes_the_other_formats_of_them(cli, tiny_clip, make_image, tmp_path):
    photos = tmp_path / "photos"
    for i, name in enumerate(("one.jpg", "two.jpg")):
        make_image(photos / name, 40, 50, seed=i)
    out = tmp_path / "out"

    def segment(*args):
        return cli("segment", photos, *WORDS, *tiny_clip.options, "-o", out, "-f", "labels,npz,coco", *args)

    assert segment().code == 0
    wanted = other(maps(out)["one"])
    assert cli("import", out, *plain(tmp_path / "mine", one=wanted)).code == 0
    mine = (out / "one.png").read_bytes()
    (out / "two.png").unlink()
    done = segment("--min-area", "5")
    assert done.code == 0, done.err
    assert "1 label was corrected or checked by hand, and kept: one" in done.err
    assert (out / "one.png").read_bytes() == mine and (out / "two.png").is_file()
    with np.load(out / "one.npz") as data:
        assert np.array_equal(data["labels"], wanted) and (data["confidence"] == 1).all()
    assert cli("import", out, out / "coco.json", "--json").code == 0  # as before: coco.json says the same
    assert list(human_labels(out)) == ["one"]
    make_image(photos / "one.jpg", 41, 50, seed=3)
    done = segment()
    assert done.code == 1 and "one" in done.err and (out / "one.png").read_bytes() == mine


def test_pseudolabel_keeps_corrected_and_checked_ones(run, folder, cli, tmp_path):
    photos = make_photos(tmp_path / "photos", 4)
    assert run(photos, *WITH_WORDS).code == 0
    wanted = other(maps(folder / "labels")["00"])
    marks = tmp_path / "marks.json"
    marks.write_text(
        json.dumps(
            {
                "format": "clipseg-review",
                "version": 1,
                "run": "run",
                "marks": {"01": "good", "trip/02": "good"},
            }
        )
    )
    done = cli("import", folder / "labels", *plain(tmp_path / "mine", **{"00": wanted}))
    assert done.code == 0, done.err
    assert cli("import", folder, marks).code == 0
    before = contents(folder / "labels")
    # A relabelling of all: images replaced by others, labels gone.
    for name in ("00.png", "01.png", "trip/02.png"):
        with Image.open(photos / name) as image:
            turned = image.transpose(Image.Transpose.ROTATE_180)
        turned.save(photos / name, compress_level=1)
    (folder / "labels" / "03.png").unlink()
    done = run(photos, *WITH_WORDS)
    assert done.code == 0, done.err
    assert "3 labels (00, ...) were corrected or checked by hand and stay as they are" in done.err
    assert contents(folder / "labels") == before
    assert {r.kind for r in human_labels(folder).values()} == {"corrected", "checked"}
    machine = read_human(folder)["00"]
    assert machine_file(folder, machine).is_file()
    counted = json.loads((folder / "manifest.json").read_text())["result"]
    assert counted["images"] == 4


# How good the machine was.


@pytest.fixture
def scored(tmp_path):
    """A folder of four labels, of which a human has mended two and checked one."""
    rng = np.random.default_rng(0)
    truths = {name: rng.integers(0, 3, (20, 30)) for name in "abcd"}
    machine = {name: np.where(rng.random((20, 30)) < 0.2, 0, labels) for name, labels in truths.items()}
    machine["c"] = truths["c"]
    run = labelled(
        tmp_path / "run",
        [result_of(labels, f"{name}.jpg", names=("x", "y", "z")) for name, labels in machine.items()],
    )
    return run, truths, machine


def expected(truths, machine, names):
    """mIoU and pixel accuracy over the images, counted here."""
    truth, said = (np.concatenate([maps_[n].ravel() for n in names]) for maps_ in (truths, machine))
    ious = [((truth == c) & (said == c)).sum() / ((truth == c) | (said == c)).sum() for c in range(3)]
    return np.mean(ious), (truth == said).mean()


def test_eval_scores_the_machine_by_humans(cli, scored, tmp_path):
    run, truths, machine = scored
    done = cli("eval", run)
    assert done.code == 1 and "no label that a human has corrected or checked" in done.err
    files = plain(tmp_path / "mine", a=truths["a"], b=truths["b"], c=truths["c"])
    assert cli("import", run, *files, "--checked", "--hold-out").code == 0
    done = cli("eval", run, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    miou, accuracy = expected(truths, machine, "abc")
    assert document["mIoU"] == pytest.approx(miou) and document["pixel_accuracy"] == pytest.approx(accuracy)
    assert [row["image"] for row in document["images"]] == ["a", "b", "c"]
    assert document["images"][2]["mIoU"] == 1 and document["images"][2]["kind"] == "checked"
    low, high = document["intervals"]["mIoU"]
    assert low <= miou <= high <= 1 and low == pytest.approx(expected(truths, machine, "ab")[0], abs=0.05)
    assert json.loads(cli("eval", run, "--json").out) == document
    done = cli("eval", run)
    assert "95 % interval" in done.out and "3 images" in done.err and "3 of them held out" in done.err
    assert f"{100 * miou:.1f}" in done.out and "3 images are little to go by" in done.err
    # Corrected once more, the machine's are still those that the machine made.
    better = {**truths, "a": other(truths["a"])}
    assert cli("import", run, *plain(tmp_path / "mine", a=better["a"])).code == 0
    found = json.loads(cli("eval", run, "--json").out)
    assert found["mIoU"] == pytest.approx(expected(better, machine, "abc")[0])


def test_eval_scores_another_folder_by_the_same_humans(cli, scored, tmp_path):
    run, truths, _ = scored
    assert cli("import", run, *plain(tmp_path / "mine", a=truths["a"], b=truths["b"])).code == 0
    done = cli("eval", run)
    assert "every one of these images was corrected" in " ".join(done.err.split())
    names = ("x", "y", "z")
    theirs = labelled(tmp_path / "student", [result_of(truths[n], f"{n}.jpg", names=names) for n in "ab"])
    done = cli("eval", run, "--predictions", theirs, "--json")
    assert done.code == 0 and json.loads(done.out)["mIoU"] == 1
    (theirs / "b.png").unlink()
    done = cli("eval", run, "--predictions", theirs)
    assert done.code == 1 and "has no label for b" in done.err
    done = cli("eval", run, "--model", "emoji")
    assert done.code == 2 and "--model does not go with RUN" in done.err


def test_one_image_has_no_interval_and_edited_ones_do_not_count(cli, scored, tmp_path):
    run, truths, _ = scored
    assert cli("import", run, *plain(tmp_path / "mine", a=truths["a"], b=truths["b"])).code == 0
    write("labels", [result_of(truths["c"], "b.jpg", names=("x", "y", "z"))], run)
    done = cli("eval", run, "--json")
    document = json.loads(done.out)
    assert [row["image"] for row in document["images"]] == ["a"] and document["intervals"] == {}
    assert "1 label was changed since the import" in " ".join(document["notes"])


def test_bootstrap_intervals_cover_what_they_should():
    """Of 60 samples of images from a known population about 95 % of the intervals hold its score."""
    rng = np.random.default_rng(0)
    right = rng.integers(0, 50, (4000, 3))
    labelled_, predicted = right + rng.integers(0, 50, right.shape), right + rng.integers(0, 50, right.shape)

    def miou(index):
        r, own, said = (x[index].sum(0) for x in (right, labelled_, predicted))
        return (r / (own + said - r)).mean()

    whole, hits = miou(np.arange(4000)), 0
    for seed in range(60):
        own = rng.choice(4000, 40, replace=False)
        low, high = bootstrap_scores(right[own], labelled_[own], predicted[own], draws=300, seed=seed)["mIoU"]
        assert low <= miou(own) <= high
        hits += low <= whole <= high
    assert 50 <= hits <= 60


def test_bootstrap_is_the_same_for_the_same_seed_and_certain_for_equal_images():
    one = np.array([[3, 5]] * 6)
    found = bootstrap_scores(one, one * 2, one * 2, draws=100)
    assert found["mIoU"] == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found == bootstrap_scores(one, one * 2, one * 2, draws=100)


# Learning from them.


def test_the_student_never_overrules_a_human():
    given = torch.full((2, 4, 4), UNLABELLED, dtype=torch.int32)
    proposed = torch.ones_like(given)
    human = torch.zeros_like(given)
    human[0, :2] = 1
    proposed[0, 0] = 255  # a human may say that a pixel is nothing
    proposed[0, 1] = 2
    logits = torch.zeros(2, 3, 4, 4)
    logits[:, 0] = 9.0
    hparams = resolve_hyperparameters(
        TrainConfig(iterations=4, guided=2, self_training_from=1, preset="quick"), None
    )
    targets = Targets(hparams, (0, 1, 2), None, 255)
    batch = Batch(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), given, proposed, human)
    assert targets.stage(1) == BOTH
    for iteration in range(4):
        for labels in targets(batch, logits, iteration):
            assert (labels[0, 0] == 255).all() and (labels[0, 1] == 2).all()
    (own,) = targets(batch, logits, 3)
    assert (own[0, 2:] == 0).all() and (own[1] == 0).all()


def test_a_weight_counts_a_pixel_so_many_times():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    labels = torch.tensor([[[0, 1], [2, 255]]])
    weights = torch.tensor([[[3.0, 1.0], [1.0, 9.0]]])
    plain_ = [segmentation_loss(logits[..., :1, :1], labels[..., :1, :1], 255)]
    whole = segmentation_loss(logits, labels, 255)
    weighted = segmentation_loss(logits, labels, 255, weights)
    assert weighted.item() == pytest.approx(whole.item() + 2 * plain_[0].item() / 4, rel=1e-5)
    assert segmentation_loss(logits, labels, 255, torch.ones_like(weights)).item() == pytest.approx(
        whole.item()
    )


@pytest.fixture
def corrected_run(label_run, tmp_path, cli):
    """A run with one corrected and one held-out label."""
    run = copy_run(label_run, tmp_path / "labels-run")
    names = sorted(maps(run / "labels"))
    first, second = (other(maps(run / "labels")[name], 21) for name in names[:2])
    assert cli("import", run, *plain(tmp_path / "m", **{names[0]: first})).code == 0
    assert cli("import", run, *plain(tmp_path / "m", **{names[1]: second}), "--hold-out").code == 0
    return run, names


def test_train_weighs_keeps_and_holds_out(corrected_run, teach):
    run, names = corrected_run
    task = open_task(TrainConfig(labels=str(run)))
    learnt = [sample.source.name for sample in task.samples]
    assert names[1] not in learnt and names[0] in learnt and list(task.human) == [names[0]]
    assert any("count 4 times" in note for note in task.notes)
    assert "1 image is held out of training" in task.notes
    heavy = teach(labels=str(run), human_weight=50.0)
    light = teach(labels=str(run), human_weight=1.0)
    assert heavy.losses != light.losses and heavy.losses[0] > 0
    assert heavy.run.identity["labels"]["human"]["weight"] == 50.0
    assert teach(labels=str(run), human_weight=1.0).equals(light)


def test_a_run_without_human_labels_trains_as_before(label_run, teach):
    first = teach(labels=str(label_run), human_weight=1.0)
    assert any("--human-weight 1 does nothing" in note for note in first.run.notes)
    assert "human" not in first.run.identity["labels"]
    assert first.equals(teach(labels=str(label_run), human_weight=50.0))


def test_going_on_needs_the_same_human_labels(corrected_run, teach, cli):
    run, _ = corrected_run
    done = teach(labels=str(run))
    assert cli("import", run, "--undo").code == 0 and cli("import", run, "--undo").code == 0
    config = TrainConfig(
        **{**vars(done.run.config), "labels": str(run), "resume": True, "dataset": "", "benchmark": None}
    )
    with pytest.raises(RunError, match="made with other options"), open_training(config):
        pass


def test_zero_shot_learns_no_unseen_class_from_humans(seen_run, tmp_path, cli):
    run = copy_run(seen_run, tmp_path / "seen-run")
    name, labels = next(iter(maps(run / "labels").items()))
    files = plain(tmp_path / "m", **{name: other(labels, 21)})
    assert cli("import", run, *files).code == 0
    config = TrainConfig(labels=str(run), setting="zero-shot")
    with pytest.raises(RunError, match="1 are by human hand"):
        open_task(config)
    assert cli("import", run, "--undo").code == 0
    assert cli("import", run, *files, "--hold-out").code == 0
    assert name not in [sample.source.name for sample in open_task(config).samples]


def test_held_out_images_are_what_a_student_is_scored_on(tiny_clip, tmp_path, cli):
    photos = make_photos(tmp_path / "photos", 5)
    assert (
        cli("pseudolabel", photos, *tiny_clip.options, *WITH_WORDS, "--templates", "single",
            "--out", tmp_path / "out", "--name", "run").code == 0
    )  # fmt: skip
    run = tmp_path / "out" / "run"
    assert open_task(TrainConfig(labels=str(run))).validation is None
    name, labels = next(iter(maps(run / "labels").items()))
    assert cli("import", run, *plain(tmp_path / "m", **{name: other(labels)}), "--hold-out").code == 0
    task = open_task(TrainConfig(labels=str(run)))
    assert [s.source.name for s in task.validation.samples] == [name]
    assert task.validation.samples[0].label.is_relative_to(run)
    assert name not in [s.source.name for s in task.samples]


def test_a_memory_is_made_of_them_but_of_none_held_out(corrected_run, tmp_path, cli):
    run, names = corrected_run
    done = cli("index", "--labels", run, "--out", tmp_path / "bank", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    assert names[0] in (tmp_path / "bank" / "bank.json").read_text()
    assert names[1] not in (tmp_path / "bank" / "bank.json").read_text()


def test_a_copy_of_a_run_keeps_what_is_known(corrected_run, tmp_path):
    run, names = corrected_run
    copy = shutil.copytree(run, tmp_path / "copy")
    assert list(human_labels(copy)) == names[:2]
