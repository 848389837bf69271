"""`clipseg train`: what a run leaves and says, that it learns, and what ends it early."""

from __future__ import annotations

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from small_backbone import SMALL_WORDS, small  # noqa: F401
from training_trees import (  # noqa: F401
    SIZE,
    TRAIN,
    WORDS,
    copy_run,
    finished_training,
    free_run,
    session_tree,
    short_config,
    short_training,
    teacher_options,
    train,
)

from clipseg_cli.commands.train import open_training
from clipseg_cli.errors import RunError
from clipseg_cli.models.student.files import read_student
from clipseg_cli.models.student.network import Student
from clipseg_cli.runs.manifest import read_manifest
from clipseg_cli.training import log
from clipseg_cli.training import loop as run
from clipseg_cli.training.log import read_log

CPU = torch.device("cpu")


@pytest.fixture
def words(label_run, tmp_path):
    """A command that trains for four iterations into `tmp_path/run`."""
    return ("train", "--labels", label_run, *WORDS, *SMALL_WORDS, "--out", tmp_path, "--name", "run")


def segment(cli, image, student, out):
    """Label one image, and return its label map."""
    done = cli("segment", image, "--student", student, "--device", "cpu", "--out", out)
    assert done.code == 0, done.err
    (path,) = out.glob("*.png") if len(list(out.glob("*.png"))) == 1 else out.glob("*labels*.png")
    with Image.open(path) as labels:
        return np.asarray(labels)


# What a run leaves


def test_a_run_folder_holds_checkpoints_logs_pictures_and_a_manifest(taught):
    folder = taught.folder
    student = ["student.json", "student.safetensors"]
    assert {path.name for path in folder.iterdir()} == {
        *("checkpoints", "tensorboard", "log.csv", "validation.csv"),
        *("curves.png", "predictions.png", "manifest.json"),
    }
    held = {
        path.name: sorted(file.name for file in path.iterdir()) for path in (folder / "checkpoints").iterdir()
    }
    assert held == {
        "last-0000004": sorted([*student, "optimiser.safetensors", "state.json"]),
        "best-0000004": student,
    }
    for name in ("curves.png", "predictions.png"):
        with Image.open(folder / name) as image:
            image.load()
            assert image.width > 100
    assert not list(folder.rglob(".*"))


def test_the_log_says_what_every_iteration_did(taught):
    with (taught.folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == [1, 2, 3, 4]
    assert [row["stage"] for row in rows] == ["guided", "guided", "self-training", "self-training"]
    assert [float(row["loss"]) for row in rows] == taught.losses
    rates = [float(row["lr"]) for row in rows]
    assert rates == sorted(rates, reverse=True) and rates[0] == taught.run.hparams.lr
    assert all(float(row["images_per_second"]) > 0 for row in rows)


def test_where_teacher_and_student_both_label_each_counts_half(teach, label_run):
    """The same weights and crops in the first iteration, labelled in three ways."""
    ways = {"guided": (1, 1), "self-training": (0, 0), "guided + self-training": (1, 0)}
    losses = {}
    for stage, (guided, self_training_from) in ways.items():
        (step,) = teach(
            labels=str(label_run), iterations=1, guided=guided, self_training_from=self_training_from
        ).steps
        assert step.stage == stage
        losses[stage] = step.loss
    alone = losses["guided"], losses["self-training"]
    assert losses["guided + self-training"] == pytest.approx(sum(alone) / 2)
    assert alone[0] != pytest.approx(alone[1], rel=0.01)


def test_tensorboard_says_the_same(taught):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(taught.folder / "tensorboard")).Reload()
    losses = board.Scalars("train/loss")
    assert [event.step for event in losses] == [1, 2, 3, 4]
    assert [event.value for event in losses] == pytest.approx(taught.losses)
    (score,) = board.Scalars("val/mIoU")
    assert score.value == pytest.approx(taught.validations[-1].miou)
    assert "val/predictions" in board.Tags()["images"]


def test_the_manifest_is_complete_and_says_how_it_was_made(taught, tree):
    manifest = read_manifest(taught.folder)
    assert manifest is not None and manifest.complete
    identity, result = manifest.identity, manifest.result
    assert identity["kind"] == "train" and identity["dataset"]["root"] == str(tree.resolve())
    assert identity["teacher"]["name"] == "tiny-vit" and len(identity["teacher"]["fingerprint"]) == 16
    assert identity["labels"]["run"] == str(taught.run.task.run.resolve())
    assert identity["numbers"]["backbone"] == "resnet10t" and "torch" in identity["versions"]
    assert result["iterations"] == result["best_iteration"] == 4
    assert result["miou"] == result["best_miou"] == taught.validations[-1].miou
    assert result["validation_images"] == 2 and result["failures"] == {}


def test_the_checkpoint_is_the_student_at_the_end(taught):
    for kind in ("last", "best"):
        student, card = read_student(taught.folder / f"checkpoints/{kind}-0000004", CPU)
        assert all(student.state_dict()[name].equal(value) for name, value in taught.weights.items())
        assert card.training["iteration"] == 4 and card.classes == taught.run.task.classes
        assert card.training["miou"] == taught.validations[-1].miou


def test_the_student_segments_pictures(taught, tree, cli, tmp_path):
    labels = segment(cli, tree / "JPEGImages" / f"{TRAIN[0]}.jpg", taught.folder, tmp_path / "out")
    assert labels.shape == SIZE and labels.max() < 21


# What the command says


def test_the_command_says_what_it_learns_and_how_to_use_it(words, label_run, tmp_path, cli):
    done = cli(*words)
    assert (done.code, done.out) == (0, "")
    folder = tmp_path / "run"
    for said in (
        "PASCAL VOC 2012, train split, 6 images, 21 classes",
        f"annotation-free: guided by the labels of {label_run} for 2 iterations, then self-training from 2",
        "DeepLabv2 on small, 4 iterations of 2 crops of 32 pixels",
        "Note: small with random weights",
        "iteration 4 of 4: loss ",
        "iteration 4: mIoU ",
        f"results in {folder}",
        f"Use it: clipseg segment IMAGES --student {folder}",
    ):
        assert said in done.err
    assert re.search(r"^4 iterations in \d", done.err, re.MULTILINE)


def test_json_is_one_document(words, tmp_path, cli):
    done = cli(*words, "--json")
    found = json.loads(done.out)
    assert done.code == 0
    assert found["folder"] == str(tmp_path / "run")
    assert found["checkpoint"] == str(tmp_path / "run/checkpoints/last-0000004")
    assert found["numbers"]["iterations"] == 4 and found["validation"]["iteration"] == 4
    assert found["validation"]["miou"] == found["best_miou"] and found["failures"] == {}


def test_quiet_is_silent(words, tmp_path, cli):
    done = cli(*words, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert (tmp_path / "run/checkpoints/last-0000004").is_dir()


def test_help_lists_the_panels(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    done = cli("train", "--help")
    assert done.code == 0
    for said in ("What is learnt", "Student", "Schedule", "--resume", "--grad-accumulation", "torchrun"):
        assert said in done.out
    assert "clipseg train --preset quick" in done.out


def test_without_labels_the_newest_run_is_taken(label_run, tmp_path, cli, monkeypatch):
    copy_run(label_run, tmp_path / "runs/pseudolabel/newest")
    monkeypatch.chdir(tmp_path)
    done = cli("train", *WORDS, *SMALL_WORDS)
    assert done.code == 0, done.err
    assert "Learning from runs/pseudolabel/newest" in done.err
    assert [path.name for path in (tmp_path / "runs/train").iterdir()] == ["voc-voc21-annotation-free-small"]


# That it learns


def test_ground_truth_is_learnt(tree, tmp_path):
    options = {
        "setting": "supervised",
        "model": "emoji",
        "backbone": "small",
        "short_side": 48,
        "batch_size": 4,
    }
    done = train(short_config(**options, dataset=str(tree), iterations=24, out=tmp_path, name="run"))
    assert {step.stage for step in done.steps} == {"ground truth"}
    assert np.mean(done.losses[-6:]) < 0.7 * np.mean(done.losses[:3])
    assert all(0 < step.labelled <= 1 for step in done.steps)


def test_the_teacher_s_features_are_learnt(tree, tiny_clip, tmp_path):
    options = {
        **teacher_options(tiny_clip, tree),
        "targets": "features",
        "iterations": 25,
        "backbone": "small",
        "short_side": 0,
    }
    done = train(short_config(**options, out=tmp_path, name="run"))
    distances = [step.distill for step in done.steps]
    assert np.mean(distances[-5:]) < 0.9 * np.mean(distances[:5])
    assert {step.stage for step in done.steps} == {"features"}
    assert done.losses == [0.0] * 25  # no label is known


def test_the_other_head_of_the_paper_learns_too(label_run, tmp_path, cli, tree):
    options = {"head": "deeplabv3plus", "iterations": 2, "guided": 2, "backbone": "small", "short_side": 0}
    done = train(short_config(labels=str(label_run), out=tmp_path, name="run", **options))
    assert np.isfinite(done.losses).all()
    labels = segment(cli, tree / "JPEGImages" / f"{TRAIN[0]}.jpg", done.folder, tmp_path / "out")
    assert labels.shape == SIZE


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


def test_a_run_that_is_done_can_be_removed_or_moved(taught, tree, cli, tmp_path):
    moved = shutil.copytree(taught.folder, tmp_path / "moved")
    labels = segment(cli, tree / "JPEGImages" / f"{TRAIN[0]}.jpg", moved, tmp_path / "out")
    assert labels.shape == SIZE
