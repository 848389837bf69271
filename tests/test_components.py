"""Regions cover a label map once, whatever classes are called; their runs and outlines give them back."""

from __future__ import annotations

import numpy as np
import pytest
from annotated import filled, unbrushed

from clipseg_cli.ops.components import absorb_small, find_regions, runs_of
from clipseg_cli.ops.polygons import bridged, signed_area, trace
from clipseg_cli.ops.rle import brush_bytes, coco_string, counts_of

SHAPES = [(1, 1), (1, 9), (9, 1), (7, 5), (24, 31)]
MAPS = [(shape, classes, seed) for shape in SHAPES for classes in (1, 2, 4) for seed in (0, 1)]


def noise(shape, classes, seed) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, shape).astype(np.uint8)


def flooded(labels: np.ndarray) -> np.ndarray:
    """Regions found the slow way: [H, W] numbers from 1 in the order of first pixels."""
    index, count = np.zeros(labels.shape, int), 0
    for start in np.ndindex(*labels.shape):
        if index[start]:
            continue
        count += 1
        open_ = [start]
        while open_:
            y, x = open_.pop()
            inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
            if inside and not index[y, x] and labels[y, x] == labels[start]:
                index[y, x] = count
                open_ += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return index


@pytest.mark.parametrize(("shape", "classes", "seed"), MAPS)
def test_every_pixel_is_in_exactly_one_region_of_its_class(shape, classes, seed):
    labels = noise(shape, classes, seed)
    scores = np.random.default_rng(seed).random(shape, np.float32)
    regions = find_regions(labels, scores)
    assert np.array_equal(regions.index + 1, flooded(labels))
    assert regions.areas.sum() == labels.size
    assert np.array_equal(regions.labels[regions.index], labels)
    for i in range(len(regions)):
        own = regions.index == i
        rows, columns = np.nonzero(own)
        left, top, width, height = regions.boxes[i]
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        assert regions.mask(i).shape == (height, width)
        assert regions.mask(i).sum() == regions.areas[i] == own.sum()
        assert regions.confidences[i] == pytest.approx(scores[own].mean(), rel=1e-5)


def test_names_of_classes_do_not_count():
    labels = noise((40, 50), 5, 3)
    other = np.array([3, 0, 4, 1, 2], np.uint8)[labels]
    one, two = find_regions(labels), find_regions(other)
    assert np.array_equal(one.index, two.index)
    assert np.array_equal(one.boxes, two.boxes)
    assert np.array_equal(np.array([3, 0, 4, 1, 2])[one.labels], two.labels)
    again = absorb_small(labels, 9)
    assert np.array_equal(np.array([3, 0, 4, 1, 2], np.uint8)[again], absorb_small(other, 9))


def test_unknown_confidence_is_nan_and_ignored_pixels_are_in_no_region():
    labels = noise((20, 20), 3, 0)
    labels[5:9, 5:9] = 255
    regions = find_regions(labels, ignore=255)
    assert np.isnan(regions.confidences).all()
    assert np.array_equal(regions.index == -1, labels == 255)
    assert regions.areas.sum() == (labels != 255).sum()
    nothing = find_regions(np.full((3, 4), 255, np.uint8), ignore=255)
    assert len(nothing) == 0 and (nothing.index == -1).all()
    assert runs_of(nothing.index, 0, by="rows").offsets.tolist() == [0]


@pytest.mark.parametrize("least", [2, 5, 40])
def test_small_regions_go_to_their_surroundings(least):
    labels = noise((60, 60), 4, 1)
    labels[10:40, 10:40] = 1
    labels[20:30, 20:30] = 2
    before = labels.copy()
    cleaned = absorb_small(labels, least)
    assert np.array_equal(labels, before)
    assert find_regions(cleaned).areas.min() >= least
    large = find_regions(labels)
    stays = large.areas[large.index] >= least
    assert np.array_equal(cleaned[stays], labels[stays])
    assert np.array_equal(find_regions(labels, min_area=least).index, find_regions(cleaned).index)


def test_a_speck_takes_the_label_with_the_longest_border():
    labels = np.zeros((7, 9), np.uint8)
    labels[:, 5:] = 1
    labels[2:4, 4] = (
        2  # left of it three pixels on each side, right of it as many, above and below none but 0
    )
    assert absorb_small(labels, 3)[2:4, 4].tolist() == [0, 0]
    assert np.array_equal(absorb_small(labels, 2), labels)


@pytest.mark.parametrize("least", [0, 1])
def test_by_default_nothing_is_absorbed(least):
    labels = noise((9, 9), 3, 0)
    assert absorb_small(labels, least) is labels


def test_nothing_changes_where_nothing_is_large_enough():
    labels = noise((3, 3), 3, 0)
    assert np.array_equal(absorb_small(labels, 100), labels)
    labels[:] = 255
    labels[1, 1] = 0
    assert (absorb_small(labels, 5, keep=255) == 255).all()


@pytest.mark.parametrize(("shape", "classes", "seed"), MAPS)
@pytest.mark.parametrize("by", ["rows", "columns"])
def test_runs_give_the_regions_back(shape, classes, seed, by):
    regions = find_regions(noise(shape, classes, seed))
    for cut in (False, True):
        runs = runs_of(regions.index, len(regions), by=by, cut=cut)
        flat = np.full(regions.index.size, -1)
        for i in range(len(regions)):
            for start, length in zip(*runs.of(i), strict=True):
                assert (flat[start : start + length] == -1).all()
                flat[start : start + length] = i
        index = flat.reshape(shape) if by == "rows" else flat.reshape(shape[::-1]).T
        assert np.array_equal(index, regions.index)


@pytest.mark.parametrize(("shape", "classes", "seed"), MAPS)
def test_run_lengths_are_those_of_coco(shape, classes, seed):
    coco = pytest.importorskip("pycocotools.mask")
    regions = find_regions(noise(shape, classes, seed))
    runs = runs_of(regions.index, len(regions), by="columns")
    for i in range(len(regions)):
        counts = counts_of(*runs.of(i), regions.index.size)
        assert counts.sum() == regions.index.size
        theirs = coco.encode(np.asfortranarray((regions.index == i).astype(np.uint8)))
        assert coco_string(counts) == theirs["counts"].decode()


def test_long_runs_are_those_of_coco():
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((3000, 2000), np.uint8)
    mask[100:2900, 77:1500] = 1
    regions = find_regions(mask)
    runs = runs_of(regions.index, 2, by="columns")
    theirs = coco.encode(np.asfortranarray(mask))["counts"].decode()
    assert coco_string(counts_of(*runs.of(1), mask.size)) == theirs


@pytest.mark.parametrize(("shape", "classes", "seed"), [*MAPS, ((300, 400), 1, 0), ((200, 300), 2, 0)])
def test_brushes_give_the_regions_back(shape, classes, seed):
    labels = noise(shape, classes, seed)
    if shape[0] > 100:
        labels[30:60] = 0  # runs that no length of 16 bits can say
    regions = find_regions(labels)
    runs = runs_of(regions.index, len(regions), by="rows")
    for i in range(min(len(regions), 20)):
        values = unbrushed(brush_bytes(*runs.of(i), labels.size)).reshape(*shape, 4)
        assert np.array_equal(values, np.where(regions.index == i, 255, 0)[..., None].repeat(4, 2))


@pytest.mark.parametrize(("shape", "classes", "seed"), MAPS)
def test_outlines_filled_again_are_the_region(shape, classes, seed):
    regions = find_regions(noise(shape, classes, seed))
    for i in range(len(regions)):
        mask = regions.mask(i)
        rings = trace(mask)
        assert [signed_area(ring) > 0 for ring in rings] == [True] + [False] * (len(rings) - 1)
        assert sum(map(signed_area, rings)) == regions.areas[i]
        assert np.array_equal(filled(rings, mask.shape), mask)
        assert np.array_equal(filled([bridged(rings)], mask.shape), mask)
        for ring in rings:  # corners only: every step turns
            steps = np.roll(ring, -1, 0) - ring
            assert ((steps != 0).sum(1) == 1).all()
            assert ((steps[:, 0] == 0) != (np.roll(steps, -1, 0)[:, 0] == 0)).all()


def test_a_region_that_touches_itself_at_a_corner_has_one_outline():
    mask = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]], bool)
    assert len(trace(mask)) == 2  # and a hole, whose pixel touches the outside at corners only
    assert len(trace(np.eye(4, dtype=bool))) == 1
    ring = np.ones((5, 5), bool)
    ring[1:4, 1:4] = False
    ring[2, 2] = True
    assert len(trace(ring)) == 3  # two regions, one in the hole of the other: callers give one
