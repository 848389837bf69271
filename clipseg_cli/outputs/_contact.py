"""Contact sheet of a labelled data set: pictures beside their labels, and what share each class took of all."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from clipseg_cli.outputs import _canvas as canvas
from clipseg_cli.outputs import _text
from clipseg_cli.outputs._colors import class_colors
from clipseg_cli.outputs._legend import FAINT, INK, PAPER, Legend
from clipseg_cli.outputs.overlay import tint
from clipseg_cli.types import ClassShare
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types import ClassList

_SIDE = 200  # of a picture, in pixels, at most
_COLUMNS = 4
_WIDTH = 4 * _SIDE + 50  # of the sheet, at least: room for title and legend
_GAP, _MARGIN = 10, 20
_GREY = np.full((1, 3), 176, np.uint8)  # stripes on white: no label, and no colour of any class
_TITLE, _NAME, _LEGEND = 22, 13, 16  # sizes of letters


def write_contact_sheet(
    path: Path,
    pictures: Iterable[tuple[str, NDArray[np.uint8], NDArray[np.int32]]],
    classes: ClassList,
    shares: Sequence[ClassShare],
    title: str,
    ignored: float = 0.0,
) -> Path:
    """Write the sheet as PNG.

    Args:
        path: of the file.
        pictures: name, uint8 [H, W, 3] and labels [H, W] with -1 where there is none, which is hatched.
        classes: what the labels mean.
        shares: of the whole data set, for the legend.
        title: first line.
        ignored: share of the pixels of the whole data set without a label, in [0, 1].

    Raises:
        OutputError: the file cannot be written.
    """
    colors = class_colors(len(classes), classes.background)
    tiles = [(name, _tile(pixels, labels, colors, classes.background)) for name, pixels, labels in pictures]
    rows = list(shares)
    if ignored > 0:  # the legend orders by pixels, of which the shares alone tell the number
        total = sum(share.pixels for share in shares) / (1 - ignored) if ignored < 1 else 1
        rows.append(ClassShare(len(colors), "(ignored)", max(1, round(total * ignored)), ignored, None))
    drawn = any(row.pixels for row in rows)
    legend = Legend.of(rows, np.concatenate([colors, _GREY]), _LEGEND) if drawn else None
    buffer = io.BytesIO()
    _sheet(tiles, legend, title).save(buffer, "PNG", optimize=True)
    return write_bytes(path, buffer.getvalue())


def _tile(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int32],
    colors: NDArray[np.uint8],
    background: int | None,
) -> NDArray[np.uint8]:
    """A picture and its labels side by side: uint8 [h, 2 w, 3]."""
    scale = _SIDE / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale))
    small = canvas.resize_smooth(pixels, size)
    # Two more ids than classes fit 16 bits; the ignored pixels take the one after the last class.
    ids = canvas.resize_labels(np.where(labels < 0, len(colors), labels).astype(np.uint16), size)
    tinted = tint(small, ids, np.concatenate([colors, _GREY]), background)
    stripes = np.add.outer(np.arange(size[0]), np.arange(size[1])) % 6 < 2
    hatch = np.where(stripes[..., None], _GREY, np.uint8(255))
    tinted = np.where((ids == len(colors))[..., None], hatch, tinted)
    return np.concatenate([small, tinted], axis=1)


def _sheet(tiles: Sequence[tuple[str, NDArray[np.uint8]]], legend: Legend | None, title: str) -> Image.Image:
    wide = max((tile.shape[1] for _, tile in tiles), default=0)
    wide = max(wide, _SIDE)  # room for a name below
    columns = max(1, min(_COLUMNS, len(tiles)))
    width = max(_WIDTH, 2 * _MARGIN + columns * (wide + _GAP) - _GAP)
    panel = legend.draw(columns=max(1, (width - legend.pad) // legend.column)) if legend else None
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(tile.shape[0] for _, tile in row) + 2 * _NAME for row in rows]
    top = _MARGIN + 2 * _TITLE
    height = top + sum(heights) + len(rows) * _GAP + (panel.height if panel else 0)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    line = _text.ellipsize(_text.drawable(title, "pseudo labels"), _TITLE, width - 2 * _MARGIN)
    _text.draw_text(draw, _MARGIN, _MARGIN + _TITLE // 2, line, _TITLE, INK)
    y = top
    for row, row_height in zip(rows, heights, strict=True):
        for j, (name, tile) in enumerate(row):
            x = _MARGIN + j * (wide + _GAP)
            sheet.paste(Image.fromarray(tile), (x, y))
            text = _text.ellipsize(_text.drawable(name, "?"), _NAME, wide)
            _text.draw_text(draw, x, y + tile.shape[0] + _NAME, text, _NAME, FAINT)
        y += row_height + _GAP
    if legend and panel:
        sheet.paste(panel, (_MARGIN - legend.pad, y))
    return sheet
