"""Overlay `<stem>_overlay.jpg`: the image tinted by class, with a legend that never covers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from clipseg_cli.outputs import _canvas as canvas
from clipseg_cli.outputs._colors import class_colors
from clipseg_cli.outputs._each import each
from clipseg_cli.outputs._own import write_own
from clipseg_cli.outputs._sheet import Legend
from clipseg_cli.outputs._text import PAPER
from clipseg_cli.types import Format, Segmentation

if TYPE_CHECKING:
    from pathlib import Path

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
    image = canvas.jpeg_bytes(draw_overlay(result, opacity))
    return (write_own(stem.with_name(stem.name + ENDING), image),)


def draw_overlay(result: Segmentation, opacity: float = canvas.OPACITY) -> Image.Image:
    """The tinted image with its legend beside or below it, whichever makes the smaller whole."""
    size = canvas.show_size(*result.labels.shape)
    colors = class_colors(len(result.classes), result.classes.background)
    picture = Image.fromarray(
        canvas.tint(
            canvas.resize_smooth(result.image.pixels, size),
            canvas.resize_labels(result.labels, size),
            colors,
            result.classes.background,
            opacity,
        )
    )
    legend = Legend(result.shares(), colors, canvas.font_size(*size))
    rows = max(1, (picture.height - legend.pad) // legend.row)  # that fit beside the image
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


FORMAT = Format(
    each(write),
    ENDING,
    default=True,
    needs=("pixels",),
    ranges={"opacity": (0, 1)},
    summary="the image tinted by class, with contours and a legend",
)
