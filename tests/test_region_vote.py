"""The vote in regions: what it changes, what it leaves, and the command."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from region_images import EMOJI, drawing, image_of, source

from clipseg_cli import Segmenter
from clipseg_cli.config import InferenceConfig, TrainConfig
from clipseg_cli.errors import UsageError
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.ops.regions import vote
from clipseg_cli.training.task import check_sources
from clipseg_cli.types import ClassList


@pytest.fixture
def noisy():
    torch.manual_seed(0)
    regions = torch.randint(0, 9, (40, 50), dtype=torch.int32)
    return torch.randint(0, 6, (40, 50), dtype=torch.uint8), torch.rand(40, 50), regions


def test_a_vote_leaves_one_label_a_region_and_a_second_one_changes_nothing(noisy):
    labels, confidence, regions = noisy
    first = vote(labels, confidence, regions)
    assert first.labels.dtype == labels.dtype and first.confidence.dtype == confidence.dtype
    for number in range(1, 9):
        here = regions == number
        counts = torch.bincount(labels[here].long())
        assert set(first.labels[here].tolist()) == {int(counts.argmax())}
    again = vote(first.labels, first.confidence, regions)
    assert torch.equal(again.labels, first.labels) and torch.equal(again.confidence, first.confidence)


def test_pixels_in_no_region_stay_as_they_are(noisy):
    labels, confidence, regions = noisy
    found = vote(labels, confidence, regions)
    free = regions == 0
    assert torch.equal(found.labels[free], labels[free])
    assert torch.equal(found.confidence[free], confidence[free])
    alone = vote(labels, confidence, torch.zeros_like(regions))
    assert torch.equal(alone.labels, labels) and torch.equal(alone.confidence, confidence)


def test_a_vote_does_not_depend_on_the_numbers_of_regions(noisy):
    labels, confidence, regions = noisy
    other = torch.tensor([0, *(torch.randperm(8) * 7 + 3).tolist()], dtype=torch.int32)[regions.long()]
    assert torch.equal(vote(labels, confidence, regions).labels, vote(labels, confidence, other).labels)


def test_a_vote_does_not_depend_on_how_many_pixels_are_counted_at_once(noisy, monkeypatch):
    whole = vote(*noisy)
    monkeypatch.setattr("clipseg_cli.ops.regions.BLOCK_PIXELS", 170)
    parts = vote(*noisy)
    assert torch.equal(parts.labels, whole.labels)
    torch.testing.assert_close(parts.confidence, whole.confidence)


def test_changed_pixels_are_as_sure_as_their_region_and_others_as_before():
    labels = torch.tensor([[2, 2, 2, 5], [1, 1, 5, 5]])
    confidence = torch.tensor([[0.9, 0.6, 0.3, 0.8], [0.5, 0.7, 0.4, 0.2]])
    regions = torch.tensor([[1, 1, 1, 1], [2, 2, 2, 2]])
    found = vote(labels, confidence, regions)
    assert found.labels.tolist() == [[2, 2, 2, 2], [1, 1, 1, 1]]  # of two equally frequent ones the smaller
    wanted = torch.tensor([[0.9, 0.6, 0.3, 1.8 / 4], [0.5, 0.7, 1.2 / 4, 1.2 / 4]])
    torch.testing.assert_close(found.confidence, wanted)


def test_the_vote_in_the_command_is_that_of_the_labels_without(cli, tmp_path):
    args = ("segment", "samples/cars.png", *EMOJI)
    assert cli(*args, "--out", tmp_path / "plain").code == 0
    done = cli(*args, "--regions", "superpixels", "--region-vote", "--out", tmp_path / "voted")
    assert done.code == 0, done.err
    with Image.open("samples/cars.png") as one:
        (regions,) = source("superpixels")([image_of(np.asarray(one.convert("RGB")))])
    plain, voted = (
        torch.from_numpy(np.asarray(Image.open(tmp_path / f"{name}/cars.png")).copy())
        for name in ("plain", "voted")
    )
    wanted = vote(plain, torch.ones(plain.shape), torch.from_numpy(regions.ids)).labels
    assert torch.equal(voted, wanted) and not torch.equal(voted, plain)
    steps = json.loads((tmp_path / "voted/classes.json").read_text("utf-8"))["model"]["settings"]
    assert steps["refinements"][-1] == {"name": "region_vote", "value": True}
    assert steps["regions"]["name"] == "superpixels" and "scikit-image" in steps["regions"]


def test_the_protocol_lists_the_vote_behind_the_decision(cli):
    done = cli(
        *("eval", "--benchmark", "voc21", "--regions", "superpixels", "--region-vote", "--pamr", "1"),
        *("--show-protocol", "--json"),
    )
    assert done.code == 0, done.err
    names = [step["name"] for step in json.loads(done.out)["steps"]]
    assert names[-3:] == ["pamr", "decide", "region_vote"]


def test_python_gives_what_the_command_gives(cli, tmp_path):
    args = ("--regions", "superpixels", "--region-vote", "--set", "superpixels.scale=300")
    assert cli("segment", "samples/cars.png", *EMOJI, *args, "--out", tmp_path).code == 0
    own = Segmenter.from_pretrained(
        "emoji",
        regions="superpixels",
        region_vote=True,
        hyperparameters={"superpixels.scale": 300},
        device="cpu",
    )
    background = InferenceConfig.background
    found = own.segment("samples/cars.png", "car,tree,house", background=background)
    with Image.open(tmp_path / "cars.png") as one:
        assert np.array_equal(found.labels, np.asarray(one))


def test_maps_by_name_fit_neither_python_nor_crops(tmp_path):
    text = f"folder={tmp_path}"
    with pytest.raises(UsageError, match="maps of regions are found by the names of files"):
        Segmenter.from_pretrained("emoji", regions=text, region_vote=True)
    with pytest.raises(UsageError, match="maps of --regions are of whole images"):
        check_sources(TrainConfig(dataset=".", teacher=True, regions=text, region_vote=True))


def test_crops_in_memory_get_regions_of_their_own():
    """As a teacher of `clipseg train` labels them."""
    config = InferenceConfig(model="emoji", device="cpu", regions="superpixels", region_vote=True)
    plan = plan_clip(config, find_protocol("default"))
    names = ("car", "tree", "house")
    backbone, predictor = plan.load(ClassList(names, tuple((name,) for name in names)))
    crops = np.stack([drawing(64, 96), drawing(64, 96)[:, ::-1]])
    crops[0] ^= np.random.default_rng(0).integers(0, 32, crops[0].shape, dtype=np.uint8)
    found = list(predictor.labels(torch.from_numpy(crops).permute(0, 3, 1, 2), (64, 96)))
    plain = dataclasses.replace(config, regions="", region_vote=False)
    alone = plan_clip(plain, find_protocol("default")).predictor(backbone, predictor.classes)
    for pixels, labels, before in zip(
        crops, found, alone.labels(torch.from_numpy(crops).permute(0, 3, 1, 2), (64, 96)), strict=True
    ):
        (regions,) = source("superpixels")([image_of(np.ascontiguousarray(pixels))])
        wanted = vote(before, torch.ones(64, 96), torch.from_numpy(regions.ids)).labels
        assert torch.equal(labels, wanted)
