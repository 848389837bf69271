"""Overlay `<stem>_overlay.jpg`: the picture tinted by class, with a legend that never covers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from clipseg_cli.outputs import _canvas as canvas
from clipseg_cli.outputs._colors import class_colors
from clipseg_cli.outputs._each import each
from clipseg_cli.outputs._legend import PAPER, Legend
from clipseg_cli.outputs._own import write_own
from clipseg_cli.types import Format, Segmentation

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types import RunInfo

ENDING = "_overlay.jpg"

OPACITY = 140 / 256
"""Of class colours over the picture."""

_BACKGROUND = 30 / 140  # of that


def write(result: Segmentation, stem: Path, run: RunInfo, *, opacity: float = OPACITY) -> tuple[Path, ...]:
    """Write `<stem>_overlay.jpg`; `opacity` is how much of the class colours shows, from 0 to 1.

    Raises:
        OutputError: the file cannot be written.
    """
    del run
    image = canvas.jpeg_bytes(draw_overlay(result, opacity))
    return (write_own(stem.with_name(stem.name + ENDING), image),)


def draw_overlay(result: Segmentation, opacity: float = OPACITY) -> Image.Image:
    """The tinted picture with its legend beside or below it, whichever makes the smaller whole."""
    size = canvas.show_size(*result.labels.shape)
    colors = class_colors(len(result.classes), result.classes.background)
    picture = Image.fromarray(
        tint(
            canvas.resize_smooth(result.image.pixels, size),
            canvas.resize_labels(result.labels, size),
            colors,
            result.classes.background,
            opacity,
        )
    )
    legend = Legend.of(result.shares(), colors, canvas.font_size(*size))
    rows = max(1, (picture.height - legend.pad) // legend.row)  # that fit beside the picture
    beside = legend.draw(columns=-(-len(legend.entries) // rows))
    below = legend.draw(columns=max(1, (picture.width - legend.pad) // legend.column))
    right = (picture.width + beside.width, max(picture.height, beside.height))
    under = (max(picture.width, below.width), picture.height + below.height)
    if right[0] * right[1] < under[0] * under[1]:
        whole, panel, corner = Image.new("RGB", right, PAPER), beside, (picture.width, 0)
    else:
        whole, panel, corner = Image.new("RGB", under, PAPER), below, (0, picture.height)
    whole.paste(picture)
    whole.paste(panel, corner)
    return whole


def tint(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.uint8] | NDArray[np.uint16],
    colors: NDArray[np.uint8],
    background: int | None,
    opacity: float = OPACITY,
) -> NDArray[np.uint8]:
    """Blend class colours into a picture, with contours in the full colour of the class inside them.

    Args:
        pixels: uint8 [H, W, 3].
        labels: [H, W].
        colors: uint8 [C, 3].
        background: id that is left almost as it is, without contour; or None.
        opacity: of the colours, from 0 to 1.

    Returns:
        uint8 [H, W, 3].
    """
    painted = np.take(colors, labels, axis=0)  # [H, W, 3]
    tinted = _blend(pixels, painted, opacity)
    line = 1 + max(labels.shape) // 900  # pixels on either side
    kernel = np.ones((2 * line + 1, 2 * line + 1), np.uint8)
    edge = (cv2.dilate(labels, kernel) != labels) | (cv2.erode(labels, kernel) != labels)
    cv2.copyTo(painted, edge.view(np.uint8), tinted)
    if background is not None:
        cv2.copyTo(
            _blend(pixels, painted, opacity * _BACKGROUND), (labels == background).view(np.uint8), tinted
        )
    return tinted


def _blend(under: NDArray[np.uint8], over: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """A mixture with so much of `over`: uint8 [H, W, 3]."""
    return np.asarray(cv2.addWeighted(under, 1 - share, over, share, 0), np.uint8)


FORMAT = Format(
    each(write),
    ENDING,
    default=True,
    needs=("pixels",),
    ranges={"opacity": (0, 1)},
    summary="the picture tinted by class, with contours and a legend",
)
