"""`clipseg train` interrupted or killed, and gone on with: the same bytes as in one go, or a sentence."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import time

import pytest
from resumed import (  # noqa: F401
    LONG,
    WORDS,
    half_to_change,
    half_training,
    interrupted,
    one_thread,
    record,
    refused,
    whole_training,
)
from small_backbone import SMALL, small  # noqa: F401
from training_trees import (  # noqa: F401
    copy_run,
    free_run,
    session_tree,
    short_config,
    teacher_options,
    train,
)

from clipseg_cli.commands.train import open_training
from clipseg_cli.runs.manifest import Manifest, read_manifest, write_manifest
from clipseg_cli.training import loop as run
from clipseg_cli.training.log import read_log
from clipseg_cli.utils.locks import file_lock

# The same result


@pytest.mark.parametrize("iterations", [(1,), (3, 5), (6,)])
def test_a_run_interrupted_anywhere_ends_as_in_one_go(whole, tmp_path, iterations):
    config, expected = whole
    config = dataclasses.replace(config, out=tmp_path)
    for number in iterations:
        interrupted(config, number)
        config = dataclasses.replace(config, resume=True)
    assert record(train(config).folder) == expected


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"grad_accumulation": 2, "batch_size": 4, "seed": 3, "head": "deeplabv3plus"}, id="in two parts"
        ),
        pytest.param({"preset": "voc", "iterations": 3, "guided": 1}, id="SGD"),
        pytest.param({"teacher": True, "setting": "zero-shot", "unseen": "sheep,tvmonitor"}, id="teacher"),
    ],
)
def test_so_does_any_kind_of_run(label_run, tree, tiny_clip, tmp_path, options):
    source = teacher_options(tiny_clip, tree) if options.get("teacher") else {"labels": str(label_run)}
    config = short_config(**{**LONG, **source, **options, "out": tmp_path / "one", "name": "run"})
    expected = record(train(config).folder)
    config = dataclasses.replace(config, out=tmp_path / "two")
    interrupted(config, config.iterations - 1)
    assert record(train(dataclasses.replace(config, resume=True)).folder) == expected


def test_an_error_in_the_middle_of_an_iteration_changes_nothing(whole, tmp_path, monkeypatch):
    """The fourth iteration has its gradients when it fails."""
    config, expected = whole
    config = dataclasses.replace(config, out=tmp_path)
    found, calls = run.sum_over_ranks, []

    def fails(*args):
        calls.append(args)
        if len(calls) == 4:
            raise RuntimeError("a bug")
        return found(*args)

    with monkeypatch.context() as patch:
        patch.setattr(run, "sum_over_ranks", fails)
        with pytest.raises(RuntimeError, match="a bug"), open_training(config) as training:
            list(training)
    assert record(train(dataclasses.replace(config, resume=True)).folder) == expected


SLOW = """
import json, sys, time
from clipseg_cli.cli.main import main
from clipseg_cli.models.student import backbones as student_backbones
from clipseg_cli.training.log import TrainingLog
step = TrainingLog.step
TrainingLog.step = lambda *args: (time.sleep(0.3), step(*args))
student_backbones.OWN["small"] = json.loads(sys.argv.pop(1))
main()
"""


def test_a_killed_process_is_gone_on_with(whole, label_run, tmp_path, cli, warm):
    words = ("train", "--labels", label_run, *WORDS, "--out", tmp_path, "--name", "run")
    folder = tmp_path / "run"
    killed = warm("-c", SLOW, json.dumps(SMALL), *words)
    until = time.monotonic() + 50
    while not (folder / "checkpoints/last-0000002").exists() and time.monotonic() < until:
        time.sleep(0.01)
    killed.kill()
    _, err = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, err
    manifest = read_manifest(folder)
    assert manifest is not None and not manifest.complete
    again = cli(*words, "--resume")
    assert again.code == 0, again.err
    assert f"Note: process {killed.pid} left this run unfinished" in again.err
    assert "Note: going on after iteration 2 of 6" in again.err
    assert "4 iterations in " in again.err
    assert record(folder) == whole[1]


def test_killed_between_the_last_checkpoint_and_the_manifest(whole, tmp_path):
    config, expected = whole
    folder = tmp_path / "run"
    shutil.copytree(config.out / "run", folder)
    manifest = read_manifest(folder)
    assert manifest is not None
    write_manifest(Manifest(manifest.identity), folder)
    weights = next((folder / "checkpoints").glob("last-*/student.safetensors"))
    before = weights.stat()
    train(dataclasses.replace(config, out=tmp_path, resume=True))
    assert record(folder) == expected
    assert weights.stat().st_ino == before.st_ino  # never away, not even for a moment


def test_pictures_that_failed_before_the_interruption_stay_in_the_manifest(
    label_run,
    tree,
    tmp_path,
):
    data = shutil.copytree(tree, tmp_path / "voc")
    labels = copy_run(label_run, tmp_path / "labels", data)
    image = sorted((data / "JPEGImages").iterdir())[0]
    good = image.read_bytes()
    image.write_bytes(good[:100])
    config = short_config(**LONG, labels=str(labels), out=tmp_path / "out", name="run")
    folder = interrupted(config, 5)
    image.write_bytes(good)
    again = train(dataclasses.replace(config, resume=True)).run
    manifest = read_manifest(folder)
    assert manifest is not None and list(manifest.result["failures"]) == [image.stem]
    assert list(again.failures) == [image.stem]


def test_the_log_holds_every_iteration_once(half):
    folder = half.out / "run"
    assert [row.iteration for row in read_log(folder)] == [1, 2, 3]
    train(half)
    assert [row.iteration for row in read_log(folder)] == [1, 2, 3, 4, 5, 6]


def test_a_best_checkpoint_from_later_is_forgotten(whole, tmp_path):
    """Whoever asks for the best meanwhile gets none that the run does not know."""
    config = dataclasses.replace(whole[0], out=tmp_path)
    (best,) = (interrupted(config, 4) / "checkpoints").glob("best-*")
    assert best.name == "best-0000003"
    with open_training(dataclasses.replace(config, resume=True)) as training:
        assert training.state.iteration == 2 and not best.exists()


# Nothing to go on with, or nothing left


def test_a_finished_run_has_nothing_left_to_do(whole, cli, label_run):
    config, _ = whole
    folder = config.out / "run"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    words = ("train", "--labels", label_run, *WORDS, "--out", config.out, "--name", "run", "--resume")
    done = cli(*words)
    assert done.code == 0
    assert f"Note: nothing is left to do: {folder} is finished" in done.err
    assert "iterations in" not in done.err and f"--student {folder}" in done.err
    found = json.loads(cli(*words, "--json").out)
    assert found["validation"]["iteration"] == 6 and found["best_iteration"] in (3, 6)
    assert found["checkpoint"].endswith("last-0000006")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_finished_run_that_lost_its_checkpoint_is_made_again(whole, tmp_path):
    config, expected = whole
    shutil.copytree(config.out / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    train(dataclasses.replace(config, out=tmp_path, resume=True))
    assert record(tmp_path / "run") == expected


def test_resume_is_asked_for(half, whole, cli):
    for config, state in ((half, "was begun before"), (whole[0], "is finished")):
        message, hint = refused(dataclasses.replace(config, resume=False))
        assert message == f"{config.out / 'run'} {state}"
        assert hint == "--resume goes on with it; --name starts another one"


def test_resume_of_nothing_is_refused_and_leaves_nothing(half):
    message, hint = refused(dataclasses.replace(half, name="other"))
    assert message == f"there is no run in {half.out / 'other'} to go on with"
    assert "leave out --resume" in hint
    assert not (half.out / "other").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_of_another_command_is_refused(label_run, resume):
    before = sorted(label_run.rglob("*"))
    config = short_config(labels=str(label_run), out=label_run.parent, name=label_run.name, resume=resume)
    assert refused(config)[0] == f"{label_run} is a run of another command"
    assert sorted(label_run.rglob("*")) == before


def test_a_run_in_use_is_refused_with_the_process(half):
    folder = half.out / "run"
    with file_lock(folder / ".lock"):
        message, hint = refused(half)
    assert message == f"{folder} is in use by process {os.getpid()}"
    assert "wait for it" in hint
