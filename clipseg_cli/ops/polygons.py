"""Outlines of masks along the edges of pixels, not through their centres: filled again, they are the mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ring = NDArray[np.int64]

_LEFT_OF = np.array([3, 2, 0, 1])
"""Where somebody who walks right, left, down or up comes by turning left, in the same numbers."""


def trace(mask: NDArray[np.bool_]) -> list[Ring]:
    """The outlines of one region.

    Where two of its pixels touch at a corner only, the outline runs through that corner twice, so that a region whose
    pixels touch at corners has one outer ring. Holes are what is outside and hangs together by edges.

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
