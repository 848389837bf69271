"""What ends a training early: numbers that are none, memory, Ctrl-C, a full disk; one sentence, and what is kept."""

from __future__ import annotations

import re

import pytest
import torch
from short_trainings import segment, training_words  # noqa: F401
from small_backbone import small  # noqa: F401
from training_trees import SIZE, TRAIN, free_run, session_tree, short_config  # noqa: F401

from clipseg_cli.commands.train import open_training
from clipseg_cli.errors import RunError
from clipseg_cli.models.student.files import read_student
from clipseg_cli.models.student.network import Student
from clipseg_cli.runs.manifest import read_manifest
from clipseg_cli.training import log
from clipseg_cli.training import loop as run
from clipseg_cli.training.log import read_log

CPU = torch.device("cpu")


# What ends it early


@pytest.mark.parametrize("lr", ["100", "1e6"])
def test_a_rate_that_is_too_high_ends_in_a_sentence_or_in_numbers(
    words,
    tree,
    tmp_path,
    cli,
    lr,
):
    """Whenever it stops, the checkpoint that is there can be used."""
    done = cli(*words, "--lr", lr, "--checkpoint-every", "1", "--iterations", "12")
    assert done.code == (1 if lr == "1e6" else done.code)
    if done.code:
        assert re.search(r"Error: (the loss is|some weights are) no longer finite after \d", done.err)
        assert f"the last good checkpoint is kept in {tmp_path}/run/checkpoints/last-" in done.err
        assert f"--lr {float(lr) / 4:.2g}" in done.err
        manifest = read_manifest(tmp_path / "run")
        assert manifest is not None and not manifest.complete
    labels = segment(cli, tree / "JPEGImages" / f"{TRAIN[0]}.jpg", tmp_path / "run", tmp_path / "out")
    assert labels.shape == SIZE


def test_a_loss_that_is_no_number_changes_no_weight(words, tmp_path, cli, monkeypatch):
    loss, calls = run.segmentation_loss, []

    def spoilt(*args):
        calls.append(args)
        return loss(*args) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(run, "segmentation_loss", spoilt)
    done = cli(*words, "--checkpoint-every", "2")
    assert done.code == 1
    assert "Error: the loss is no longer finite after 2 iterations" in done.err
    assert f"the last good checkpoint is kept in {tmp_path / 'run/checkpoints/last-0000002'}" in done.err
    assert "Traceback" not in done.err
    assert [step.iteration for step in read_log(tmp_path / "run")] == [1, 2]
    monkeypatch.undo()
    assert cli(*words, "--checkpoint-every", "2", "--resume").code == 0


@pytest.mark.parametrize("validate", [0, 2])
def test_weights_that_are_no_numbers_replace_no_checkpoint(label_run, tmp_path, validate):
    """A statistic may be infinite while the loss still is a number."""
    options = {
        "labels": str(label_run),
        "backbone": "small",
        "checkpoint_every": 1,
        "validate_every": validate,
        "out": tmp_path,
    }
    with (
        open_training(short_config(**options, name="run")) as training,
        pytest.raises(RunError, match="some weights are no longer finite after 2 iterations") as error,
    ):
        for event in training:
            if event.iteration == 2:
                name = next(n for n, _ in training.student.named_buffers() if n.endswith("running_var"))
                training.student.get_buffer(name)[0] = float("inf")
    kept = tmp_path / "run/checkpoints/last-0000001"
    assert f"the last good checkpoint is kept in {kept}" in error.value.message
    assert [path.name for path in kept.parent.iterdir() if not path.name.startswith(".")] == [kept.name]
    read_student(kept, CPU)


@pytest.mark.parametrize(
    ("options", "here", "ways"),
    [
        (
            ("--batch-size", "4", "--crop", "128"),
            "4 crops of 128",
            "--grad-accumulation 2, which keeps the batch, or --crop 96",
        ),
        (
            ("--batch-size", "6", "--grad-accumulation", "2", "--crop", "64"),
            "3 crops of 64",
            "--grad-accumulation 3, which keeps the batch, or --crop 32",
        ),
        (("--batch-size", "2", "--grad-accumulation", "2", "--crop", "512"), "1 crop of 512", "--crop 384"),
        (("--head", "deeplabv3plus", "--crop", "100"), "2 crops of 100", "--crop 64"),
        (("--grad-accumulation", "2"), "1 crop of 32", "a smaller --backbone"),
    ],
)
def test_out_of_memory_says_what_to_try(words, cli, monkeypatch, options, here, ways):
    def forward(self, image):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(Student, "forward", forward)
    done = cli(*words, *options)
    assert done.code == 1
    assert f"Error: not enough memory for {here} pixels at once on cpu" in done.err
    assert f"Hint: try {ways}, in a run of another --name" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("at", "kept"), [(1, False), (3, True)])
def test_ctrl_c_says_how_to_go_on(words, tmp_path, cli, monkeypatch, at, kept):
    step, calls = log.TrainingLog.step, []

    def interrupted(self, *args):
        step(self, *args)
        calls.append(args)
        if len(calls) == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(log.TrainingLog, "step", interrupted)
    done = cli(*words, "--checkpoint-every", "2")
    assert done.code == 130
    where = (
        f"--resume goes on from {tmp_path / 'run/checkpoints/last-0000002'}"
        if kept
        else "--resume starts it again: no checkpoint yet"
    )
    said = f"Error: interrupted after {at} of 4 iterations; {where}"
    assert done.err.splitlines()[-1] == said
    assert not list((tmp_path / "run").glob(".lock*"))
    monkeypatch.setattr(log.TrainingLog, "step", step)
    again = cli(*words, "--checkpoint-every", "2", "--resume")
    assert again.code == 0
    assert len(read_log(tmp_path / "run")) == 4


def test_a_full_disk_is_a_sentence(words, tmp_path, cli, monkeypatch):
    from pathlib import Path

    opened = Path.open

    def full(self, mode="r", *args, **kwargs):
        if self.name == "log.csv" and "a" in mode:
            raise OSError(28, "No space left on device")
        return opened(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    done = cli(*words)
    assert done.code == 1
    assert f"Error: no space left on the disk while writing {tmp_path / 'run/log.csv'}" in done.err
    monkeypatch.undo()
    assert cli(*words, "--resume").code == 0
