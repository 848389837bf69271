"""Options had other names: runs and files that were written with them still serve, and they can still be typed."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from resumed import half_to_change, half_training, one_thread, record, whole_training  # noqa: F401
from small_backbone import small  # noqa: F401
from training_trees import free_run, session_tree, train  # noqa: F401

from clipseg_cli.cli.options import with_present_flags
from clipseg_cli.config import FORMER_NAMES, TrainConfig, options_of, with_present_names
from clipseg_cli.runs.manifest import Manifest, read_manifest, write_manifest
from clipseg_cli.training.hyperparameters import Hyperparameters

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BEFORE = {
    "options": {
        "rate": "lr",
        "step_images": "batch_size",
        "self_from": "self_training_from",
        "accumulate": "grad_accumulation",
    },
    "numbers": {
        "rate": "lr",
        "min_rate": "min_lr",
        "self_from": "self_training_from",
        "accumulate": "grad_accumulation",
    },
}
"""Part of the manifest of a training -> the names that its entries had -> and have."""


def write_as_before(folder):
    """Make a run of today one of a version with the former names."""
    manifest = read_manifest(folder)
    parts = {}
    for part, names in BEFORE.items():
        entries = dict(manifest.identity[part])
        parts[part] = {name: entries.pop(now) for name, now in names.items()} | entries
    parts["options"]["batch_size"] = 16  # of windows, which a training had no use for
    write_manifest(Manifest(manifest.identity | parts, manifest.result), folder)
    log = folder / "log.csv"
    log.write_text(log.read_text().replace("iteration,loss,lr,", "iteration,loss,rate,", 1))
    return manifest


def printed(done):
    """The settings that `--print-config` wrote for `clipseg train`."""
    assert done.code == 0, done.err
    return tomllib.loads(done.out)["train"]


def test_a_training_that_was_begun_with_former_names_ends_as_in_one_go(whole, half):
    folder = half.out / "run"
    write_as_before(folder)
    assert '"step_images"' in (folder / "manifest.json").read_text()
    assert record(train(half).folder) == whole[1]
    text = (folder / "manifest.json").read_text()
    assert '"grad_accumulation"' in text and not [name for name in FORMER_NAMES if f'"{name}"' in text]


def test_a_manifest_with_former_names_is_read_as_one_with_those_of_today(half):
    now = write_as_before(half.out / "run")
    assert read_manifest(half.out / "run") == now


def test_settings_are_taken_over_from_a_run_with_former_names(cli, half):
    folder = half.out / "run"
    now = printed(cli("train", "--like", folder, "--print-config"))
    assert now["batch-size"] == 2  # crops, as in `short_config`
    write_as_before(folder)
    assert printed(cli("train", "--like", folder, "--print-config")) == now


def test_a_batch_of_crops_is_no_batch_of_windows(cli, half, label_run, tree):
    """What `batch_size` counts is not the same in a training and elsewhere: neither takes it from the other."""
    done = cli("pseudolabel", tree, "--like", half.out / "run", "--print-config")
    assert done.code == 0 and "batch-size = 16" in done.out
    assert "batch-size" not in printed(cli("train", "--like", label_run, "--print-config"))


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        (("--rate", "0.5"), "lr", 0.5),
        (("--learning-rate=0.5",), "lr", 0.5),
        (("--accumulate", "3"), "grad-accumulation", 3),
    ],
)
def test_former_flags_can_be_typed_and_are_not_shown(cli, tmp_path, typed, name, value):
    assert printed(cli("train", *typed, "--print-config"))[name] == value
    flag = typed[0].partition("=")[0]
    shown = cli("train", "--help").out
    assert f"--{name} " in shown and f"{flag} " not in shown
    file = tmp_path / "settings.toml"
    file.write_text(f"[train]\n{flag.removeprefix('--')} = {value}\n")
    assert printed(cli("train", "--config", file, "--print-config"))[name] == value


def test_only_flags_of_the_command_before_two_dashes_are_renamed():
    assert with_present_flags(["rate", "--rate=1", "--", "--rate"], {"--lr"}) == [
        "rate",
        "--lr=1",
        "--",
        "--rate",
    ]
    assert with_present_flags(["--rate", "1"], {"--out"}) == ["--rate", "1"]


def test_every_former_name_stands_for_an_option_or_hyperparameter_of_today():
    present = {*options_of(TrainConfig), *(field.name for field in dataclasses.fields(Hyperparameters))}
    assert set(FORMER_NAMES.values()) <= present
    assert not present & set(FORMER_NAMES)


def test_a_former_name_wins_over_its_present_one():
    assert with_present_names({"batch_size": 16, "step_images": None, "crop": 32}) == {
        "crop": 32,
        "batch_size": None,
    }
