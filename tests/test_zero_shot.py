"""`--keep-labels seen`: ground truth where there is some, and only unseen classes where there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import NAMES, labels_in, make_small_voc, run_command, run_folder  # noqa: F401

from clipseg_cli.commands.pseudolabel import open_run
from clipseg_cli.config import PseudolabelConfig
from clipseg_cli.data.datasets import read_label
from clipseg_cli.inference import predictor
from clipseg_cli.inference.predictor import Predictor
from clipseg_cli.ops.pseudo import fill_unlabelled

ZERO_SHOT = ("--keep-labels", "seen", "--unseen")


@pytest.fixture
def voc(tmp_path):
    return make_small_voc(tmp_path / "voc", 3)


def truth_in(voc):
    return {
        path.stem: np.asarray(Image.open(path))
        for path in sorted((voc / "SegmentationClass").glob("*.png"))
        if path.stem in NAMES
    }


def test_seen_pixels_keep_their_ground_truth_and_unseen_ones_are_filled(run, voc, folder):
    done = run(voc, *ZERO_SHOT, "tvmonitor,bird,cow")
    assert done.code == 0, done.err
    unseen = (20, 3, 10)
    for name, labels in labels_in(folder).items():
        truth = truth_in(voc)[name]
        hidden = np.isin(truth, unseen)
        assert hidden.any() and (truth == 255).any()
        assert np.array_equal(labels[~hidden], truth[~hidden])
        assert np.isin(labels[hidden], unseen).all()
    assert "50.0% of all pixels kept their ground truth" in done.err


def test_unsure_pixels_are_ignored_only_where_the_model_labels(run, voc, folder):
    run(voc, *ZERO_SHOT, "tvmonitor,bird", "--min-confidence", "1")
    for name, labels in labels_in(folder).items():
        truth = truth_in(voc)[name]
        assert np.array_equal(labels, np.where(truth == 20, 255, truth))


def test_a_picture_without_unseen_pixels_is_not_shown_to_the_model(run, voc, folder, monkeypatch):
    for name in NAMES[:2]:
        Image.fromarray(np.full((12, 16), 7, np.uint8)).save(voc / "SegmentationClass" / f"{name}.png")
    prepared, prepare = [], Predictor.prepare

    def watch(self, image, size=None):
        prepared.append(image.source.relative.name)
        return prepare(self, image, size)

    monkeypatch.setattr(Predictor, "prepare", watch)
    assert run(voc, *ZERO_SHOT, "tvmonitor").code == 0
    assert prepared == [NAMES[2]]
    assert (labels_in(folder)[NAMES[0]] == 7).all()


def test_filling_agrees_with_the_published_order(tiny_clip, voc, tmp_path, monkeypatch):
    """Same labels as `fill_unlabelled`, which is checked against the authors' code, from the same maps."""
    config = PseudolabelConfig(
        dataset=str(voc),
        model=tiny_clip.name,
        pretrained=str(tiny_clip.weights),
        templates="single",
        device="cpu",
        keep_labels="seen",
        unseen="tvmonitor,cow,bird",
        out=tmp_path / "out",
        name="run",
    )
    maps, make = {}, predictor.finish

    def keep(one, labelled, row, *rest):
        maps[str(one.image.source.relative)] = labelled.class_maps[row].maps
        return make(one, labelled, row, *rest)

    monkeypatch.setattr(predictor, "finish", keep)
    with open_run(config) as opened:
        opened.predictor.class_scores = True  # so that the maps are kept
        assert all(not record.error for record in opened)
        truth = {str(s.source.relative): read_label(s, opened.dataset) for s in opened.dataset.samples}
        # A map for each word, the classes in label order.
        unseen = [(3, 10, 20)[c] for c in opened.predictor.classes.query_to_class]
    found = labels_in(tmp_path / "out" / "run")
    for name, ids in truth.items():
        hidden = np.isin(ids, unseen)
        given = torch.from_numpy(np.where(hidden, -1, np.where(ids < 0, 255, ids)))
        expected = fill_unlabelled(given, maps[name].maps[0], unseen)
        assert np.array_equal(found[name], expected.numpy())


def test_the_published_split_is_taken_by_preset(run, voc, folder):
    done = run(voc, "--benchmark", "voc20", *ZERO_SHOT, "preset")
    assert done.code == 0, done.err
    options = json.loads((folder / "manifest.json").read_text())["options"]
    assert set(options["unseen"]) == {"potted plant", "sheep", "sofa", "train", "tv monitor"} or set(
        options["unseen"]
    ) == {"pottedplant", "sheep", "sofa", "train", "tvmonitor"}


def damage_size(path):
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(path)


def damage_id(path):
    Image.fromarray(np.full((12, 16), 77, np.uint8)).save(path)


def damage_colours(path):
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(path)


def damage_bytes(path):
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_size, "is 16x12, but its label"),
        (damage_id, "77 is no label of voc21 (192 pixels)"),
        (damage_colours, "is an RGB image, not class ids"),
        (damage_bytes, "is damaged or cut short"),
    ],
)
def test_bad_ground_truth_fails_one_picture(run, voc, folder, damage, said):
    damage(voc / "SegmentationClass" / f"{NAMES[1]}.png")
    done = run(voc, *ZERO_SHOT, "tvmonitor,bird")
    assert done.code == 1
    assert said in done.err and "Error: 1 of 3 images has no label" in done.err
    assert set(labels_in(folder)) == {NAMES[0], NAMES[2]}
    assert "Traceback" not in done.err
