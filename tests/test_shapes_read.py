"""Run lengths, polygons and ellipses as pixels: the way back from what `ops` writes, and what others write."""

from __future__ import annotations

import numpy as np
import pytest
from annotated import filled, shapes
from pycocotools import mask as coco

from clipseg_cli.ops import polygons
from clipseg_cli.ops.components import find_regions, runs_of
from clipseg_cli.ops.polygons import bridged, fill, trace
from clipseg_cli.ops.rle import brush_bytes, brush_mask, coco_counts, coco_string, counts_of, mask_of
from clipseg_cli.ops.shapes import box_ring, ellipse_patch

SIZE = (19, 23)


def whole(patch, size=SIZE):
    top, left, mask = patch
    found = np.zeros(size, bool)
    found[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return found


@pytest.mark.parametrize(
    "labels", [shapes(), np.random.default_rng(0).integers(0, 4, SIZE)], ids=["shapes", "noise"]
)
def test_every_region_comes_back(labels):
    regions = find_regions(labels.astype(np.uint8))
    height, width = labels.shape
    rows, columns = (runs_of(regions.index, len(regions), by=by) for by in ("rows", "columns"))
    for i in range(len(regions)):
        wanted = regions.index == i
        ring = bridged(trace(regions.mask(i))) + regions.boxes[i, :2]
        assert np.array_equal(whole(fill(ring.astype(float), height, width), labels.shape), wanted)
        counts = counts_of(*columns.of(i), height * width)
        assert np.array_equal(coco_counts(coco_string(counts)), counts)
        assert np.array_equal(mask_of(counts, height * width).reshape(width, height).T, wanted)
        data = brush_bytes(*rows.of(i), height * width)
        assert np.array_equal(brush_mask(data, height * width).reshape(height, width), wanted)


@pytest.mark.parametrize("seed", range(40))
def test_run_lengths_of_pycocotools_are_read(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((int(rng.integers(1, 200)), int(rng.integers(1, 200)))) < rng.choice([0, 0.02, 0.5, 1])
    text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(mask_of(coco_counts(text), mask.size).reshape(mask.shape[::-1]).T, mask)


@pytest.mark.parametrize("at_once", [1, 7, 1 << 22])
@pytest.mark.parametrize("seed", range(15))
def test_any_ring_is_filled_by_the_even_odd_rule(seed, at_once, monkeypatch):
    monkeypatch.setattr(polygons, "_CROSSINGS", at_once)
    rng = np.random.default_rng(seed)
    ring = rng.uniform(-8, 30, (int(rng.integers(3, 12)), 2))
    ring = ring.round() if seed % 3 == 0 else ring
    assert np.array_equal(whole(fill(ring, *SIZE)), filled([ring], SIZE))


@pytest.mark.parametrize(
    "ring", [[[40, 1], [50, 1], [50, 9]], [[1, 1], [2, 2], [3, 3]], [[-9, -9], [-1, -9], [-1, -1]]]
)
def test_rings_without_a_pixel(ring):
    assert not whole(fill(np.array(ring, float), *SIZE)).any()


def test_brushes_whose_values_are_not_repeated_are_read():
    """Two pixels: eight values, seven of them one after the other, as Label Studio's own encoder may write them."""
    values = [9, 9, 9, 255, 1, 2, 3]
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    bits += "0" + "01" + f"{len(values) - 1:04b}" + "".join(f"{value:08b}" for value in values)
    bits += "1" + "00" + f"{0:03b}" + f"{0:08b}"
    data = np.packbits(np.array(list(bits), np.uint8))
    assert brush_mask(data, 2).tolist() == [True, False]
    with pytest.raises(ValueError, match="cut short"):
        brush_mask(data[:-3], 2)
    with pytest.raises(ValueError, match="for 2 pixels, not 3"):
        brush_mask(data, 3)


def test_a_turned_box_and_a_turned_ellipse():
    corner = box_ring(10, 5, 4, 2, 90, about_centre=False)
    assert np.allclose(corner, [[10, 5], [10, 9], [8, 9], [8, 5]])  # clockwise as one sees it
    centre = box_ring(10, 5, 4, 2, 90, about_centre=True)
    assert np.allclose(sorted(centre.tolist()), [[11, 4], [11, 8], [13, 4], [13, 8]])
    lying = whole(ellipse_patch(11.5, 9.5, 9, 3, 0, *SIZE))
    standing = whole(ellipse_patch(11.5, 9.5, 3, 9, 0, *SIZE))
    assert np.array_equal(whole(ellipse_patch(11.5, 9.5, 3, 9, 90, *SIZE)), lying)
    assert not np.array_equal(lying, standing) and abs(lying.sum() - np.pi * 27) < 5
    assert whole(ellipse_patch(0, 0, 3, 3, 0, *SIZE)).sum() == 8  # a quarter; the rest is outside


@pytest.mark.parametrize(
    ("counts", "why"),
    [([3, 4], "add up to 7 pixels, not 8"), ([-1, 9], "below 0"), ([9, 0], "a run length is 9")],
)
def test_run_lengths_must_fit(counts, why):
    with pytest.raises(ValueError, match=why):
        mask_of(np.array(counts), 8)
