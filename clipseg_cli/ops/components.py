"""Regions of a label map: the connected components of each class, with their holes.

Pixels are connected where they touch, at a corner too (8-connectivity). Whatever writes regions takes them from here,
so that all formats of one label map hold the same ones, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.integer[Any]]

LabelMap = TypeVar("LabelMap", bound="Labels")

NOWHERE = -1
"""Index of pixels that are in no region."""

_STRIP = 1 << 20  # pixels that are summed up at once


@dataclass(frozen=True)
class Regions:
    """All R regions of a label map, in the order of their first pixels, row by row: the names of classes do not count.

    Attributes:
        index: [H, W] int32, the region of each pixel; -1 where pixels are ignored.
        labels: [R] class ids.
        areas: [R] pixels.
        boxes: [R, 4] left, top, width, height in pixels.
        confidences: [R] mean over the pixels, in [0, 1]; NaN where that is not known.
    """

    index: NDArray[np.int32]
    labels: NDArray[np.int64]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]
    confidences: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    def mask(self, region: int) -> NDArray[np.bool_]:
        """Which pixels of its box belong to a region: [height, width]."""
        left, top, width, height = self.boxes[region]
        return np.asarray(self.index[top : top + height, left : left + width] == region)


@dataclass(frozen=True)
class Runs:
    """Pixels of equal index that follow each other, the runs of one region side by side.

    Attributes:
        starts, lengths: [n] in pixels, counted along rows or along columns of the whole image.
        offsets: [R + 1]; the runs of region i are those from offsets[i] to offsets[i + 1], ascending.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def of(self, region: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts and lengths of one region."""
        own = slice(self.offsets[region], self.offsets[region + 1])
        return self.starts[own], self.lengths[own]


def find_regions(
    labels: Labels,
    scores: NDArray[np.float32] | None = None,
    *,
    ignore: int | None = None,
    min_area: int = 0,
) -> Regions:
    """Cut a label map into regions.

    Args:
        labels: [H, W] class ids.
        scores: [H, W] in [0, 1], for the confidences.
        ignore: value of pixels that get into no region.
        min_area: as in `absorb_small`.
    """
    labels = absorb_small(labels, min_area, keep=ignore)
    index = _ordered(_components(labels), labels, ignore)
    count = int(index.max(initial=NOWHERE)) + 1
    runs = runs_of(index, count, by="rows", cut=True)
    width = max(index.shape[1], 1)
    first = runs.offsets[:-1]
    ids = labels.ravel()[runs.starts[first]].astype(np.int64)
    areas = np.add.reduceat(runs.lengths, first) if count else np.zeros(0, np.int64)
    boxes = np.zeros((count, 4), np.int64)
    if count:
        left, top = runs.starts % width, runs.starts // width
        boxes[:, 0] = np.minimum.reduceat(left, first)
        boxes[:, 1] = top[first]
        boxes[:, 2] = np.maximum.reduceat(left + runs.lengths, first) - boxes[:, 0]
        boxes[:, 3] = top[runs.offsets[1:] - 1] + 1 - boxes[:, 1]
    sums = np.full(count, np.nan) if scores is None else _sums(index, scores, count)
    return Regions(index, ids, areas, boxes, sums / np.maximum(areas, 1))


def means_over(regions: Regions, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """[R] means of [H, W] values over the pixels of each region."""
    return _sums(regions.index, values, len(regions)) / np.maximum(regions.areas, 1)


def absorb_small(labels: LabelMap, min_area: int, *, keep: int | None = None) -> LabelMap:
    """The same map, in which regions of less than `min_area` pixels have gone to their surroundings.

    Such a region takes, as a whole, the label with which it shares the longest border, of those around it that are
    large enough (of two alike, the one that comes first); from the outside in, where small ones lie among small ones.
    Where nothing in the map is large enough nothing changes. The map that was given is not changed.

    Args:
        labels: [H, W].
        min_area: in pixels; 0 and 1 change nothing.
        keep: a label whose regions stay, however small: "ignore".
    """
    if min_area <= 1 or not labels.size:
        return labels
    index = _ordered(_components(labels), labels, None)
    count = int(index.max()) + 1
    areas = np.bincount(index.ravel(), minlength=count)
    own = np.zeros(count, np.int64)
    own[index.ravel()] = labels.ravel()
    small = areas < min_area
    if keep is not None:
        small &= own != keep
    if not small.any() or small.all():
        return labels
    inside, outside, border = _borders(index, small)
    waiting = small.copy()
    while len(inside):
        known = waiting[inside] & ~waiting[outside]
        if not known.any():
            break
        chosen, new = _longest(inside[known], outside[known], own[outside[known]], border[known])
        own[chosen] = new
        waiting[chosen] = False
        open_ = waiting[inside]
        inside, outside, border = inside[open_], outside[open_], border[open_]
    return cast("LabelMap", own.astype(labels.dtype)[index])


def runs_of(index: NDArray[np.int32], count: int, *, by: str, cut: bool = False) -> Runs:
    """The runs of all regions.

    Args:
        index: [H, W] region of each pixel, or -1.
        count: of the regions.
        by: "rows", or "columns" as COCO counts.
        cut: whether a run ends with its row or column; else it goes on in the next.
    """
    flat = (index if by == "rows" else index.T).ravel()
    if not flat.size:
        empty = np.zeros(0, np.int64)
        return Runs(empty, empty, np.zeros(count + 1, np.int64))
    begins = np.empty(flat.size, np.bool_)
    begins[0] = True
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    if cut:
        begins[:: index.shape[1] if by == "rows" else index.shape[0]] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=flat.size)
    owner = flat[starts]
    order = np.argsort(owner, kind="stable")
    order = order[np.searchsorted(owner[order], 0) :]  # behind those of no region
    offsets = np.searchsorted(owner[order], np.arange(count + 1))
    return Runs(starts[order], lengths[order], offsets)


def _components(labels: Labels) -> NDArray[np.int32]:
    """[H, W] number of the 8-connected part of equal labels, from 0, in no order that means anything."""
    index = np.zeros(labels.shape, np.int32)
    count = 0
    for value in np.unique(labels):
        own = labels == value
        rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside = np.ascontiguousarray(own[box])
        found, parts = cv2.connectedComponents(inside.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
        np.copyto(index[box], parts + (count - 1), where=inside, casting="unsafe")
        count += found - 1
    return index


def _ordered(index: NDArray[np.int32], labels: Labels, ignore: int | None) -> NDArray[np.int32]:
    """The same parts, counted in the order of their first pixels, without those that are ignored."""
    if not index.size:
        return index
    flat = index.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    values, first = np.unique(flat[starts], return_index=True)
    first = starts[first]
    rank = np.empty(len(values), np.int32)
    kept = np.ones(len(values), np.bool_) if ignore is None else labels.ravel()[first] != ignore
    order = np.argsort(first)
    order = order[kept[order]]
    rank[~kept] = NOWHERE
    rank[order] = np.arange(len(order))
    return rank[index]


def _sums(index: NDArray[np.int32], scores: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """Scores summed over each region, in strips: bincount widens what it gets to 8 bytes."""
    sums = np.zeros(count + 1)
    step = max(1, _STRIP // max(index.shape[1], 1))
    for top in range(0, index.shape[0], step):
        strip = index[top : top + step].ravel() + 1
        sums += np.bincount(strip, weights=scores[top : top + step].ravel(), minlength=count + 1)
    return sums[1:]


def _borders(
    index: NDArray[np.int32], small: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (small part, other part) that touch, each with the number of pairs of pixels that do."""
    count = len(small)
    found = []
    for one, other in (
        (index[:, :-1], index[:, 1:]),
        (index[:-1], index[1:]),
        (index[:-1, :-1], index[1:, 1:]),
        (index[:-1, 1:], index[1:, :-1]),
    ):
        differ = one != other
        a, b = one[differ].astype(np.int64), other[differ].astype(np.int64)
        found += [(a * count + b)[small[a]], (b * count + a)[small[b]]]
    pairs, border = np.unique(np.concatenate(found), return_counts=True)
    return pairs // count, pairs % count, border


def _longest(
    inside: NDArray[np.int64], outside: NDArray[np.int64], label: NDArray[np.int64], border: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each part the label around it with the longest border; of two alike the one whose part comes first."""
    order = np.lexsort((outside, label, inside))
    inside, outside, label, border = (values[order] for values in (inside, outside, label, border))
    begins = np.ones(len(inside), np.bool_)
    begins[1:] = (inside[1:] != inside[:-1]) | (label[1:] != label[:-1])
    at = np.flatnonzero(begins)
    inside, outside, label, border = inside[at], outside[at], label[at], np.add.reduceat(border, at)
    order = np.lexsort((outside, -border, inside))
    parts, first = np.unique(inside[order], return_index=True)
    return parts, label[order[first]]
