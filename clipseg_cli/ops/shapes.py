"""Boxes and ellipses, turned or not, as annotation tools draw them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Patch = tuple[int, int, NDArray[np.bool_]]
"""Top, left and mask [h, w] of the box of a shape inside the image."""


def box_ring(
    left: float, top: float, width: float, height: float, degrees: float, *, about_centre: bool
) -> NDArray[np.float64]:
    """The corners [4, 2] of a box, turned clockwise about its centre or about its upper left corner."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    pivot = np.array([width, height]) / 2 if about_centre else np.zeros(2)
    turn = math.radians(degrees)
    matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    ring: NDArray[np.float64] = (corners - pivot) @ matrix + pivot + [left, top]
    return ring


def ellipse_patch(
    x: float, y: float, radius_x: float, radius_y: float, degrees: float, height: int, width: int
) -> Patch:
    """The pixels whose centres are inside an ellipse that is turned clockwise; cut off at the image.

    Args:
        x, y: its centre, in pixels from the upper left corner of the image.
        radius_x, radius_y: in pixels, above 0.
        degrees: of the turn.
        height, width: of the image.
    """
    reach = max(radius_x, radius_y)
    left, right = (int(np.clip(v, 0, width)) for v in (math.floor(x - reach), math.ceil(x + reach)))
    top, bottom = (int(np.clip(v, 0, height)) for v in (math.floor(y - reach), math.ceil(y + reach)))
    dx = np.arange(left, right) + 0.5 - x
    dy = (np.arange(top, bottom) + 0.5 - y)[:, None]
    turn = math.radians(degrees)
    along = (dx * math.cos(turn) + dy * math.sin(turn)) / radius_x
    across = (dy * math.cos(turn) - dx * math.sin(turn)) / radius_y
    return top, left, np.asarray(along**2 + across**2 <= 1)
