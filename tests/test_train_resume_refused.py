"""`clipseg train --resume` of another run, of damaged files, and on a full disk: a sentence, and nothing is lost."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from dataset_trees import make_folder
from PIL import Image
from resumed import (  # noqa: F401
    WORDS,
    half_to_change,
    half_training,
    interrupted,
    one_thread,
    record,
    refused,
    whole_training,
)
from small_backbone import small  # noqa: F401
from training_trees import (  # noqa: F401
    copy_run,
    free_run,
    session_tree,
    short_config,
    teacher_options,
    train,
)

from clipseg_cli.runs.manifest import Manifest, read_manifest, write_manifest
from clipseg_cli.training import checkpoints
from clipseg_cli.training.log import read_validation

# Another run than the one that was begun


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lr": 0.5}, "--lr: 0.001, now 0.5"),
        ({"seed": 1}, "--seed: 0, now 1"),
        ({"iterations": 7}, "--iterations: 6, now 7"),
        ({"backbone": "resnet18"}, "--backbone: small, now resnet18"),
        ({"crop": 64, "grad_accumulation": 2}, "--grad-accumulation: 1, now 2"),
    ],
)
def test_other_options_are_named(half, options, named):
    message, hint = refused(dataclasses.replace(half, **options))
    assert message.startswith(f"{half.out / 'run'} was made with other options: ") and named in message
    assert hint == "use the same options to go on, or another --name to start anew"
    assert "numbers" not in message and message.count(named.partition(":")[0]) == 1


def test_labels_that_have_changed_are_refused(label_run, tree, tmp_path):
    labels = copy_run(label_run, tmp_path / "labels", tree)
    config = short_config(
        iterations=2, checkpoint_every=1, labels=str(labels), out=tmp_path / "out", name="run"
    )
    folder = interrupted(config, 2)
    begun = read_manifest(folder)
    path = sorted((labels / "labels").iterdir())[0]
    good = path.read_bytes()
    with Image.open(path) as image:
        image.point(lambda value: 0).save(path)
    message, hint = refused(dataclasses.replace(config, resume=True))
    assert "have changed since" in message and "put them back" in hint
    path.write_bytes(good)
    # A run that was begun before labels had a fingerprint takes those that are there.
    labels_then = {k: v for k, v in begun.identity["labels"].items() if k != "sha256"}
    write_manifest(Manifest({**begun.identity, "labels": labels_then}), folder)
    train(dataclasses.replace(config, resume=True))


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
        ("student.json", "gone"),
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
    assert message.count(str(folder)) == 1 and "Errno" not in message
    if how in ("cut", "gone"):
        assert f"{name} is {'missing' if how == 'gone' else 'damaged'}" in message
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
