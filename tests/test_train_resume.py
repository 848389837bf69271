"""`clipseg train` interrupted or killed, and gone on with: the same bytes as in one go, or a sentence."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import time

import pytest
import torch
from dataset_trees import make_folder
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
from clipseg_cli.errors import RunError
from clipseg_cli.runs.manifest import Manifest, read_manifest, write_manifest
from clipseg_cli.training import checkpoints, log
from clipseg_cli.training import loop as run
from clipseg_cli.training.log import Step, read_log, read_validation
from clipseg_cli.utils.locks import file_lock

LONG = {
    "backbone": "small",
    "iterations": 6,
    "guided": 3,
    "checkpoint_every": 2,
    "validate_every": 3,
    "validation_images": 1,
    "short_side": 0,
}
"""Checkpoints behind 2 and 4, validations behind 3 and 6, self-training from 3."""

WORDS = (
    *("--preset", "quick", "--backbone", "small", "--init", "none", "--crop", "32", "--batch-size", "2"),
    *("--iterations", "6", "--guided", "3", "--checkpoint-every", "2", "--validate-every", "3"),
    *("--validation-images", "1", "--short-side", "0", "--workers", "1", "--device", "cpu"),
)
"""The same as words."""


@pytest.fixture(autouse=True)
def _one_thread():
    """As the processes that are started here: another number rounds in another way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """Drawing takes longer than training here."""
    monkeypatch.setattr(log, "draw_curves", lambda *args, **options: None)


def interrupted(config, iterations):
    """Train, and stop behind so many iterations without a word."""
    with open_training(config) as training:
        for event in training:
            if isinstance(event, Step) and event.iteration == iterations:
                break
        assert not training.finished
    return training.folder


def record(folder):
    """All that a run left, without what depends on the clock."""
    found = {}
    for path in sorted((folder / "checkpoints").rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    (state,) = (name for name in found if name.endswith("state.json"))
    found[state] = {**json.loads(found[state]), "seconds": 0}
    with (folder / "log.csv").open(newline="") as file:
        found["log.csv"] = [{**row, "images_per_second": ""} for row in csv.DictReader(file)]
    for name in ("validation.csv", "predictions.png"):
        found[name] = (folder / name).read_bytes()
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.complete
    found["manifest.json"] = {**manifest.result, "seconds": 0}
    found["files"] = sorted(p.name for p in folder.iterdir() if p.name != "curves.png")
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, label_run):
    """A run in one go: its configuration, and what it left."""
    config = short_config(labels=str(label_run), out=tmp_path_factory.mktemp("whole"), name="run", **LONG)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    taught = train(config)
    torch.set_num_threads(before)
    assert [step.stage for step in taught.steps] == ["guided"] * 3 + ["self-training"] * 3
    return config, record(taught.folder)


@pytest.fixture(scope="module")
def _half(whole, tmp_path_factory):
    return interrupted(dataclasses.replace(whole[0], out=tmp_path_factory.mktemp("half")), 3)


@pytest.fixture
def half(whole, _half, tmp_path):
    """The same run, interrupted behind its third iteration, of which two are in a checkpoint."""
    shutil.copytree(_half, tmp_path / "run")
    return dataclasses.replace(whole[0], out=tmp_path, resume=True)


def refused(config):
    with pytest.raises(RunError) as error, open_training(config) as training:
        list(training)
    return error.value.message, error.value.hint


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
            {"accumulate": 2, "step_images": 4, "seed": 3, "head": "deeplabv3plus"}, id="in two parts"
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
    picture = sorted((data / "JPEGImages").iterdir())[0]
    good = picture.read_bytes()
    picture.write_bytes(good[:100])
    config = short_config(**LONG, labels=str(labels), out=tmp_path / "out", name="run")
    folder = interrupted(config, 5)
    picture.write_bytes(good)
    again = train(dataclasses.replace(config, resume=True)).run
    manifest = read_manifest(folder)
    assert manifest is not None and list(manifest.result["failures"]) == [picture.stem]
    assert list(again.failures) == [picture.stem]


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


# Another run than the one that was begun


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rate": 0.5}, "--rate: not given, now 0.5"),
        ({"seed": 1}, "--seed: 0, now 1"),
        ({"iterations": 7}, "--iterations: 6, now 7"),
        ({"backbone": "resnet18"}, "--backbone: small, now resnet18"),
        ({"crop": 64, "accumulate": 2}, "--accumulate: 1, now 2"),
    ],
)
def test_other_options_are_named(half, options, named):
    message, hint = refused(dataclasses.replace(half, **options))
    assert message.startswith(f"{half.out / 'run'} was made with other options: ") and named in message
    assert hint == "use the same options to go on, or another --name to start anew"


def test_workers_and_how_the_work_is_shared_may_change(half, whole):
    assert record(train(dataclasses.replace(half, workers=3)).folder) == whole[1]


def test_it_may_be_kept_and_scored_at_other_times(half, whole):
    found = record(train(dataclasses.replace(half, checkpoint_every=1, validate_every=2)).folder)
    assert found["log.csv"] == whole[1]["log.csv"]
    for name in ("student.safetensors", "optimiser.safetensors"):
        path = f"checkpoints/last-0000006/{name}"
        assert found[path] == whole[1][path]
    assert [v.iteration for v in read_validation(half.out / "run")] == [4, 6]


def test_another_class_list_is_refused(tmp_path, tiny_clip):
    data = make_folder(tmp_path / "own", names=("a", "b"))
    options = {**teacher_options(tiny_clip, data), "crop": 32, "iterations": 2, "checkpoint_every": 1}
    config = short_config(**options, out=tmp_path / "out", name="run")
    interrupted(config, 2)
    (data / "classes.txt").write_text("cat\nhorse\ncouch, sofa\n")
    message, _ = refused(dataclasses.replace(config, resume=True))
    assert "dog, now horse" in message


# Damaged files


def damage(path, how):
    if how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "gone":
        path.unlink()
    else:
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, **how}))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("student.safetensors", "cut"),
        ("student.safetensors", "gone"),
        ("student.json", "cut"),
        ("student.json", {"format": 9}),
        ("optimiser.safetensors", "cut"),
        ("optimiser.safetensors", "gone"),
        ("state.json", "cut"),
        ("state.json", "gone"),
        ("state.json", {"iteration": "2"}),
        ("state.json", {"iteration": 5}),
        ("state.json", {"best": "high"}),
        ("state.json", {"colour": "red"}),
    ],
)
def test_a_damaged_checkpoint_is_a_sentence(half, name, how):
    folder = half.out / "run/checkpoints/last-0000002"
    damage(folder / name, how)
    message, hint = refused(half)
    assert message.startswith(f"{folder} cannot be resumed: ") and "\n" not in message
    assert hint == "start anew with another --name"
    assert (folder / "student.safetensors").exists() == (how != "gone" or name != "student.safetensors")


def test_momenta_of_another_network_are_refused(half):
    from safetensors.torch import load_file, save_file

    path = half.out / "run/checkpoints/last-0000002/optimiser.safetensors"
    momenta = load_file(path)
    name = next(iter(momenta))
    save_file({**momenta, name: torch.zeros(1)}, path)
    assert name in refused(half)[0]
    save_file({**momenta, "other": torch.zeros(1)}, path)
    assert "other" in refused(half)[0]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"classes": [{"name": f"c{i}", "words": [f"c{i}"]} for i in range(21)]}, "of another class list"),
        ({"training": {}}, None),
    ],
)
def test_a_checkpoint_of_another_class_list_is_refused(half, changes, what):
    folder = half.out / "run/checkpoints/last-0000002"
    damage(folder / "student.json", changes)
    if what is None:  # facts for people
        train(half)
    else:
        assert refused(half)[0] == f"{folder} cannot be resumed: it is a checkpoint {what}"


def test_a_damaged_manifest_or_log_is_a_sentence(half):
    folder = half.out / "run"
    log = (folder / "log.csv").read_bytes()
    (folder / "log.csv").write_bytes(b"a,b\n1,2\n")
    assert refused(half)[0].startswith(f"{folder / 'log.csv'}:1: the columns are not")
    (folder / "log.csv").write_bytes(log)
    damage(folder / "manifest.json", {"unseen": ["dog"]})
    assert "does not agree with its own checksum" in refused(half)[0]
    damage(folder / "manifest.json", "cut")
    assert "is not JSON" in refused(half)[0]


# No room on the disk


@pytest.mark.parametrize("name", ["write_bytes", "write_json"])
def test_a_full_disk_leaves_the_checkpoint_before(whole, tmp_path, monkeypatch, cli, label_run, name):
    """The second checkpoint finds no space; what is there is enough to go on."""
    write, calls = getattr(checkpoints, name), []

    def full(*args):
        if "last" in str(args):
            calls.append(args)
            if len(calls) == 2:
                raise OSError(28, "No space left on device")
        return write(*args)

    words = ("train", "--labels", label_run, *WORDS, "--out", tmp_path, "--name", "run")
    with monkeypatch.context() as patch:
        from clipseg_cli.utils.files import output_errors

        def guarded(*args):
            with output_errors(tmp_path):
                return full(*args)

        patch.setattr(checkpoints, name, guarded)
        done = cli(*words)
    assert done.code == 1
    assert f"Error: no space left on the disk while writing {tmp_path}" in done.err
    assert "free some space" in done.err
    again = cli(*words, "--resume")
    assert again.code == 0, again.err
    assert "going on after iteration 2 of 6" in again.err
    assert record(tmp_path / "run") == whole[1]
