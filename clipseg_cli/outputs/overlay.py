"""Overlay `<stem>_overlay.jpg`: the picture tinted by class, with a legend that never covers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw

from clipseg_cli.outputs import _canvas as canvas
from clipseg_cli.outputs import _text
from clipseg_cli.outputs._colors import class_colors, hex_color
from clipseg_cli.types import ClassShare, Segmentation, Writer
from clipseg_cli.utils.files import write_bytes
from clipseg_cli.utils.numbers import percent

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ENDING = "_overlay.jpg"

_TINT, _BACKGROUND_TINT = 140, 30  # of 256
_MAX_ENTRIES = 24
_PAPER, _INK, _FAINT = "white", "#1b1b1b", "#6b6b6b"


def write(result: Segmentation, stem: Path) -> tuple[Path, ...]:
    """Write `<stem>_overlay.jpg`.

    Raises:
        OutputError: the file cannot be written.
    """
    return (write_bytes(stem.with_name(stem.name + ENDING), canvas.jpeg_bytes(draw_overlay(result))),)


def draw_overlay(result: Segmentation) -> Image.Image:
    """The tinted picture with its legend beside or below it, whichever makes the smaller whole."""
    size = canvas.show_size(*result.labels.shape)
    colors = class_colors(len(result.classes), result.classes.background)
    picture = Image.fromarray(
        tint(
            canvas.resize_smooth(result.image.pixels, size),
            canvas.resize_labels(result.labels, size),
            colors,
            result.classes.background,
        )
    )
    legend = _Legend.of(result.shares(), colors, canvas.font_size(*size))
    rows = max(1, (picture.height - legend.pad) // legend.row)  # that fit beside the picture
    beside = legend.draw(columns=-(-len(legend.entries) // rows))
    below = legend.draw(columns=max(1, (picture.width - legend.pad) // legend.column))
    right = (picture.width + beside.width, max(picture.height, beside.height))
    under = (max(picture.width, below.width), picture.height + below.height)
    if right[0] * right[1] < under[0] * under[1]:
        whole, panel, corner = Image.new("RGB", right, _PAPER), beside, (picture.width, 0)
    else:
        whole, panel, corner = Image.new("RGB", under, _PAPER), below, (0, picture.height)
    whole.paste(picture)
    whole.paste(panel, corner)
    return whole


def tint(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.uint8] | NDArray[np.uint16],
    colors: NDArray[np.uint8],
    background: int | None,
) -> NDArray[np.uint8]:
    """Blend class colours into a picture, with contours in the full colour of the class inside them.

    Args:
        pixels: uint8 [H, W, 3].
        labels: [H, W].
        colors: uint8 [C, 3].
        background: id that is left almost as it is, without contour; or None.

    Returns:
        uint8 [H, W, 3].
    """
    painted = np.take(colors, labels, axis=0)  # [H, W, 3]
    tinted = _blend(pixels, painted, _TINT)
    line = 1 + max(labels.shape) // 900  # pixels on either side
    kernel = np.ones((2 * line + 1, 2 * line + 1), np.uint8)
    edge = (cv2.dilate(labels, kernel) != labels) | (cv2.erode(labels, kernel) != labels)
    cv2.copyTo(painted, edge.view(np.uint8), tinted)
    if background is not None:
        cv2.copyTo(_blend(pixels, painted, _BACKGROUND_TINT), (labels == background).view(np.uint8), tinted)
    return tinted


def _blend(under: NDArray[np.uint8], over: NDArray[np.uint8], weight: int) -> NDArray[np.uint8]:
    """A mixture with `weight` 256ths of `over`: uint8 [H, W, 3]."""
    return np.asarray(cv2.addWeighted(under, 1 - weight / 256, over, weight / 256, 0), np.uint8)


@dataclass(frozen=True)
class _Legend:
    """Entries of a legend and the measures, in pixels, of one of them.

    Attributes:
        entries: (colour or None, name, share) from the largest share down.
        size: of the letters.
        pad: around the panel.
        row, column: height and width of one entry with the space after it.
        name: width of the names.
    """

    entries: tuple[tuple[str | None, str, str], ...]
    size: int
    pad: int
    row: int
    column: int
    name: int

    @classmethod
    def of(cls, shares: list[ClassShare], colors: NDArray[np.uint8], size: int) -> _Legend:
        present = sorted((s for s in shares if s.pixels), key=lambda s: -s.pixels)
        named = present if len(present) <= _MAX_ENTRIES else present[: _MAX_ENTRIES - 1]
        entries: list[tuple[str | None, str, str]] = []
        for s in named:
            name = _text.ellipsize(_text.drawable(s.name, f"class {s.id}"), size, 14 * size)
            entries.append((hex_color(colors[s.id]), name, percent(s.share)))
        if rest := present[len(named) :]:
            entries.append((None, f"and {len(rest)} more", percent(sum(s.share for s in rest))))
        name_width = max(_text.text_width(name, size) for _, name, _ in entries)
        share_width = _text.text_width("100.0%", size)
        column = round(1.5 * size) + name_width + size + share_width + round(1.6 * size)
        return cls(tuple(entries), size, round(0.9 * size), round(1.6 * size), column, name_width)

    def draw(self, columns: int) -> Image.Image:
        """The panel with its entries in `columns`, read from top to bottom, or fewer if that fills them."""
        rows = -(-len(self.entries) // columns)
        columns = -(-len(self.entries) // rows)
        gap = round(1.6 * self.size)  # after each column but the last
        panel = Image.new(
            "RGB", (2 * self.pad + columns * self.column - gap, 2 * self.pad + rows * self.row), _PAPER
        )
        draw = ImageDraw.Draw(panel)
        for i, (color, name, share) in enumerate(self.entries):
            x = self.pad + i // rows * self.column
            y = self.pad + i % rows * self.row + self.row // 2
            if color is not None:
                box = (x, y - self.size // 2, x + self.size, y + self.size - self.size // 2)
                draw.rounded_rectangle(box, radius=self.size // 5, fill=color)
            _text.draw_text(draw, x + round(1.5 * self.size), y, name, self.size, _INK)
            end = x + self.column - gap
            _text.draw_text(draw, end - _text.text_width(share, self.size), y, share, self.size, _FAINT)
        return panel


WRITER = Writer(write, ENDING, summary="the picture tinted by class, with contours and a legend")
