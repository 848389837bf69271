"""Outlines of masks along the edges of pixels, not through their centres; filled again, they are the mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ring = NDArray[np.int64]

_LEFT_OF = np.array([3, 2, 0, 1])
"""Where somebody who walks right, left, down or up comes by turning left, in the same numbers."""


_CROSSINGS = 1 << 22
"""Crossings of edges and rows that `fill` holds at once."""


def trace(mask: NDArray[np.bool_]) -> list[Ring]:
    """The outlines of one region.

    Where two of its pixels touch at a corner only, the outline runs through that corner twice, so that a region whose
    pixels touch at corners has one outer ring. Pixels outside are one hole where they touch at edges (4-connectivity).

    Args:
        mask: [H, W] with one 8-connected region; of several, each has its outer ring.

    Returns:
        Rings of corners [n, 2], x and y in pixels from the upper left corner of the mask, the last not joined to the
        first again: outer ones first, clockwise as one sees them, then holes, the other way round.
    """
    starts, ends = _edges(mask)
    follows = _follows(starts, ends)
    rings = _cycles(starts, follows)
    return sorted(rings, key=lambda ring: signed_area(ring) < 0)


def signed_area(ring: Ring) -> float:
    """Pixels inside a ring; negative for a hole."""
    x, y = ring[:, 0], ring[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def bridged(rings: Sequence[Ring]) -> Ring:
    """One ring from an outer ring and its holes, for formats without holes.

    Each hole is joined by a bridge of no width, walked both ways, from its first corner to the nearest of the ring.

    Args:
        rings: the outer one, then holes, as from `trace`.
    """
    whole = rings[0]
    for hole in sorted(rings[1:], key=lambda ring: tuple(ring.min(0))):
        distance = np.abs(whole - hole[0]).sum(1)
        near = int(distance.argmin())
        whole = np.concatenate([whole[: near + 1], hole, hole[:1], whole[near:]])
    return whole


def fill(ring: NDArray[np.float64], height: int, width: int) -> tuple[int, int, NDArray[np.bool_]]:
    """The pixels whose centres are inside a ring, by the even-odd rule; what lies outside the image is cut off.

    Args:
        ring: [n, 2] corners, x and y in pixels from the upper left corner of the image; any order of turning.
        height, width: of the image.

    Returns:
        Top, left and mask [h, w] of a box that holds them all; a mask without pixels where there are none.
    """
    after = np.roll(ring, -1, 0)
    up = ring[:, 1] > after[:, 1]
    upper, lower = np.where(up[:, None], after, ring), np.where(up[:, None], ring, after)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    counts = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64) - first
    crossing = counts > 0
    upper, lower, first, counts = upper[crossing], lower[crossing], first[crossing], counts[crossing]
    if not len(counts):
        return 0, 0, np.zeros((0, 0), np.bool_)
    slope = (lower[:, 0] - upper[:, 0]) / (lower[:, 1] - upper[:, 1])
    top, bottom = int(first.min()), int((first + counts).max())
    left = int(np.clip(np.floor(ring[:, 0].min() - 0.5) + 1, 0, width))
    right = int(np.clip(np.floor(ring[:, 0].max() - 0.5) + 1, 0, width))
    wide = right - left + 1
    flips = np.zeros((bottom - top) * wide, np.int64)
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(
        counts
    ):  # some edges at once, since a hostile ring may cross each row any number of times
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _CROSSINGS, "right")))
        own = np.repeat(np.arange(begin, end), counts[begin:end])
        row = np.arange(len(own)) - np.repeat(ends[begin:end] - counts[begin:end] - done, counts[begin:end])
        row += first[own]
        x = upper[own, 0] + slope[own] * (row + 0.5 - upper[own, 1])
        # The first column whose centre is to the right of the edge, and with it all behind, change sides.
        column = np.clip(np.floor(x - 0.5) + 1, left, right).astype(np.int64)
        flips += np.bincount((row - top) * wide + column - left, minlength=len(flips))
        begin = end
    inside = np.cumsum(flips.reshape(-1, wide), axis=1) % 2 == 1
    return top, left, inside[:, :-1]


def _edges(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Straight stretches of the outline, with the mask to the right of whoever walks along them.

    Returns:
        [n, 3] starts and [n, 3] ends: x, y, and the direction: 0 right, 1 left, 2 down, 3 up.
    """
    padded = np.pad(mask, 1).view(np.int8)
    found_starts: list[NDArray[np.int64]] = []
    found_ends: list[NDArray[np.int64]] = []
    for axis, forward in (
        (0, 0),
        (1, 3),
    ):  # along rows: right above the mask; along columns: up to the left of it
        step = np.diff(padded, axis=axis)  # 1 where the mask begins, -1 where it ends
        lines = step if axis == 0 else step.T  # [lines, cells along them]
        for sign in (1, -1):
            own = np.pad((lines == sign).view(np.int8), ((0, 0), (1, 1)))
            change = np.diff(own, axis=1)
            line, low = np.nonzero(change == 1)
            high = np.nonzero(change == -1)[1]
            # Cells begin one before the mask, lines with the mask itself.
            low, high = low - 1, high - 1
            first, last = (low, high) if (sign == 1) == (axis == 0) else (high, low)
            direction = forward if sign == 1 else forward ^ 1
            for many, at in ((found_starts, first), (found_ends, last)):
                x, y = (at, line) if axis == 0 else (line, at)
                many.append(np.stack([x, y, np.full(len(x), direction)], 1))
    return np.concatenate(found_starts), np.concatenate(found_ends)


def _follows(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each stretch the one that goes on where it ends; at a corner that is passed twice, the one to the left."""
    follows = np.empty(len(starts), np.int64)
    level_start, level_end = starts[:, 2] < 2, ends[:, 2] < 2
    for coming, going in ((level_end, ~level_start), (~level_end, level_start)):
        before, behind = np.flatnonzero(coming), np.flatnonzero(going)
        wanted = _LEFT_OF[ends[before, 2]]
        before = before[np.lexsort((wanted, ends[before, 0], ends[before, 1]))]
        behind = behind[np.lexsort((starts[behind, 2], starts[behind, 0], starts[behind, 1]))]
        follows[before] = behind
    return follows


def _cycles(starts: NDArray[np.int64], follows: NDArray[np.int64]) -> list[Ring]:
    """The rings that the stretches make, each from the first of its stretches on, in the order of these."""
    corners, after = starts[:, :2], follows.tolist()
    seen = [False] * len(after)
    rings = []
    for first in range(len(after)):
        ring = []
        at = first
        while not seen[at]:
            seen[at] = True
            ring.append(at)
            at = after[at]
        if ring:
            rings.append(corners[ring])
    return rings
