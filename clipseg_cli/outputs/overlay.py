"""Overlay `<stem>_overlay.jpg`: the image tinted by class, with a legend that never covers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clipseg_cli.outputs import _canvas as canvas
from clipseg_cli.outputs._colors import class_colors
from clipseg_cli.outputs._each import each
from clipseg_cli.outputs._own import write_own
from clipseg_cli.outputs._sheet import Legend
from clipseg_cli.types import Format, Segmentation

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types import RunInfo

ENDING = "_overlay.jpg"


def write(
    result: Segmentation, stem: Path, run: RunInfo, *, opacity: float = canvas.OPACITY
) -> tuple[Path, ...]:
    """Write `<stem>_overlay.jpg`; `opacity` is how much of the class colours shows, from 0 to 1.

    Raises:
        OutputError: the file cannot be written.
    """
    del run
    image = canvas.jpeg_bytes(overlay_pixels(result, opacity))
    return (write_own(stem.with_name(stem.name + ENDING), image),)


def draw_overlay(result: Segmentation, opacity: float = canvas.OPACITY) -> Image.Image:
    """`overlay_pixels` as an image of Pillow."""
    return Image.fromarray(overlay_pixels(result, opacity))


def overlay_pixels(result: Segmentation, opacity: float = canvas.OPACITY) -> NDArray[np.uint8]:
    """The tinted image with its legend beside or below it, whichever makes the smaller whole: uint8 RGB [H, W, 3]."""
    shown = canvas.show_size(*result.labels.shape)
    colors = class_colors(len(result.classes), result.classes.background)
    pixels, labels, how = result.image.pixels, result.labels, (colors, result.classes.background, opacity)
    if shown > labels.shape:  # what is enlarged is tinted before: a quarter of the work, and softer contours
        tinted = canvas.tint(pixels, labels, *how)
    else:
        small = canvas.resize_smooth(pixels, shown)
        tinted = canvas.tint(small, canvas.resize_labels(labels, shown), *how)
    legend = Legend(result.shares(), colors, canvas.font_size(*shown))
    rows = max(1, (shown[0] - legend.pad) // legend.row)  # that fit beside the image
    beside = -(-len(legend.entries) // rows)
    below = max(1, (shown[1] - legend.pad) // legend.column)
    (beside_w, beside_h), (below_w, below_h) = legend.panel_size(beside), legend.panel_size(below)
    right = (shown[1] + beside_w, max(shown[0], beside_h))
    under = (max(shown[1], below_w), shown[0] + below_h)
    is_beside = right[0] * right[1] < under[0] * under[1]
    width, height = right if is_beside else under
    whole = np.empty((height, width, 3), np.uint8)
    whole[: shown[0], shown[1] :] = whole[shown[0] :] = 255  # paper
    canvas.place_smooth(tinted, whole[: shown[0], : shown[1]])
    if is_beside:
        legend.draw_on(whole[:beside_h, shown[1] :], beside)
    else:
        legend.draw_on(whole[shown[0] :, :below_w], below)
    return whole


FORMAT = Format(
    each(write),
    ENDING,
    default=True,
    needs=("pixels",),
    ranges={"opacity": (0, 1)},
    summary="the image tinted by class, with contours and a legend",
)
