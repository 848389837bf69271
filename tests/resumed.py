"""Trainings to go on with: interrupted, and in one go.

A test file imports the fixtures that it uses; their names are `whole` and `half`. `_one_thread` is for all its tests.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil

import pytest
import torch
from training_trees import (
    short_config,
    train,
)

from clipseg_cli.commands.train import open_training
from clipseg_cli.errors import RunError
from clipseg_cli.runs.manifest import read_manifest
from clipseg_cli.training.log import Step

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


@pytest.fixture(name="_one_thread", autouse=True)
def one_thread():
    """As the processes that are started here: another number rounds in another way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture(scope="module", name="whole")
def whole_training(tmp_path_factory, label_run):
    """A run in one go: its configuration, and what it left."""
    config = short_config(labels=str(label_run), out=tmp_path_factory.mktemp("whole"), name="run", **LONG)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    taught = train(config)
    torch.set_num_threads(before)
    assert [step.stage for step in taught.steps] == ["guided"] * 3 + ["self-training"] * 3
    return config, record(taught.folder)


@pytest.fixture(scope="module", name="_half")
def half_training(whole, tmp_path_factory):
    return interrupted(dataclasses.replace(whole[0], out=tmp_path_factory.mktemp("half")), 3)


@pytest.fixture(name="half")
def half_to_change(whole, _half, tmp_path):
    """The same run, interrupted behind its third iteration, of which two are in a checkpoint."""
    shutil.copytree(_half, tmp_path / "run")
    return dataclasses.replace(whole[0], out=tmp_path, resume=True)


def refused(config):
    with pytest.raises(RunError) as error, open_training(config) as training:
        list(training)
    return error.value.message, error.value.hint
