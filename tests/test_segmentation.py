"""What a segmentation can be asked for: files, masks, an overlay, regions for other libraries."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from segmenters import colours, tiny

from clipseg_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from clipseg_cli import Segmenter


@pytest.fixture(scope="module")
def shared(tiny_clip) -> Segmenter:
    return tiny(tiny_clip)


def test_a_result_is_saved_as_the_command_saves_it(cli, tiny_clip, make_image, tmp_path):
    photo = make_image(tmp_path / "x.jpg", 70, 100)
    options = (*tiny_clip.options, "--templates", "single", "--out", tmp_path / "out")
    assert cli("segment", photo, "-c", "cat,dog", "--formats", "labels,overlay,heatmaps", *options).code == 0
    result = tiny(tiny_clip).segment(photo, "cat,dog", class_scores=True)
    made = result.save(tmp_path / "saved", formats=["labels", "overlay", "heatmaps"])
    for path in made[1:]:
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(tmp_path / "saved")).read_bytes()
    assert len(made) > 4 and made[0].name == "classes.json"


def test_save_keeps_to_its_folder_and_to_one_class_list(tiny_clip, tmp_path):
    segmenter = tiny(tiny_clip)
    image = np.zeros((20, 30, 3), np.uint8)
    assert segmenter.segment(image, "cat").save(tmp_path, "sub/one")[1] == tmp_path / "sub/one.png"
    with pytest.raises(UsageError, match="leads out of the folder"):
        segmenter.segment(image, "cat").save(tmp_path, "../one")
    with pytest.raises(UsageError, match="unknown output format"):
        segmenter.segment(image, "cat").save(tmp_path, formats="tiff")
    with pytest.raises(OutputError, match="holds label maps of other classes"):
        segmenter.segment(image, "dog").save(tmp_path)


def test_maps_of_single_classes_are_there_when_asked_for(tiny_clip):
    segmenter, image = tiny(tiny_clip), np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    assert segmenter.segment(image, "cat,dog").class_scores is None
    for result in (
        segmenter.segment(image, "cat,dog", class_scores=True),
        *segmenter.segment_many([image], "cat,dog", class_scores=True),
    ):
        maps = np.stack([result.class_scores(i) for i in range(3)])
        assert np.array_equal(maps.argmax(0), result.labels)


def test_masks_cut_the_labels_into_the_classes_that_occur(shared):
    result = shared.segment(colours(seed=3), "cat,dog,cow")
    masks = result.masks(background=True)
    assert np.array_equal(sum(m.astype(int) for m in masks.values()), np.ones(result.labels.shape))
    for name, mask in masks.items():
        assert mask.dtype == bool and mask.any()
        assert np.array_equal(mask, result.labels == result.classes.names.index(name))
    assert set(result.masks()) == set(masks) - {"background"}
    assert result.confidence is result.scores


def test_a_result_shows_itself(shared):
    result = shared.segment(colours(seed=3), "cat,dog,cow,tree,sky,road", background=None)
    height, width = result.labels.shape
    text = repr(result)
    assert text.startswith(f"<Segmentation {height}x{width}: ") and len(text) < 120
    shares = [int(word.rstrip("%,>")) for word in text.split() if "%" in word]
    assert shares == sorted(shares, reverse=True) and len(shares) <= 4
    with Image.open(io.BytesIO(result._repr_png_())) as shown:
        assert shown.size == result.overlay().size
    plain, tinted = np.array(result.overlay(0.0)), np.array(result.overlay(1.0))
    assert not np.array_equal(plain, tinted)
    with pytest.raises(UsageError, match="opacity"):
        result.overlay(1.5)


def test_supervision_gets_the_regions(shared):
    supervision = pytest.importorskip("supervision")
    result = shared.segment(colours(seed=3), "cat,dog,cow")
    found = result.to_supervision()
    assert isinstance(found, supervision.Detections) and len(found)
    union = found.mask.any(axis=0)
    assert np.array_equal(union, result.labels != result.classes.background)
    assert found.mask.sum() == union.sum()  # they do not overlap
    for mask, box, label, name in zip(
        found.mask, found.xyxy.astype(int), found.class_id, found.data["class_name"], strict=True
    ):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert set(result.labels[mask]) == {label} and result.classes.names[label] == name
    everything = dataclasses.replace(result, labels=np.zeros_like(result.labels))
    assert len(everything.to_supervision()) == 0
