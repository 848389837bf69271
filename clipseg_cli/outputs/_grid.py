"""A sheet of small pictures in rows and columns, named at the side and the top, with a line below each."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from clipseg_cli.errors import OutputError
from clipseg_cli.outputs import _canvas as canvas
from clipseg_cli.outputs import _text
from clipseg_cli.outputs._legend import FAINT, INK, PAPER
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Captions = Sequence[Sequence[str | None]]

WIDTH = 160
"""Of a small picture, in pixels."""

MAX_HEIGHT = 200
"""Of a small picture; a narrow one becomes narrower than WIDTH."""

_GAP, _MARGIN = 6, 16  # between the pictures, around the sheet
_NAME, _CAPTION = 16, 13  # sizes of letters
_CAPTION_ROW = 22
_MAX_NAME = 180  # width of the names at the side


def write_corruption_grid(
    rows: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]],
    columns: Sequence[str],
    path: Path,
    captions: Captions | None = None,
) -> Path:
    """Write one sheet: a row for each kind of corruption, a column for each severity.

    Args:
        rows: (name, pictures uint8 [H, W, 3]); `thumbnail` makes them small before there are many.
        columns: names of the columns, the first perhaps that of the clean picture.
        path: ends in .png, .jpg or .jpeg.
        captions: for each row a line below each picture, such as "mIoU 41.2"; None leaves one out.

    Raises:
        OutputError: the file cannot be written, or is named as something else than a PNG or a JPEG.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OutputError(f"cannot write {path}: not a PNG or JPEG", hint="end the name in .png or .jpg")
    sheet = draw_grid([cells for _, cells in rows], [name for name, _ in rows], columns, captions)
    if path.suffix.lower() != ".png":
        return write_bytes(path, canvas.jpeg_bytes(sheet))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return write_bytes(path, buffer.getvalue())


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture [H, W, 3] at the size in which a sheet shows it: at most WIDTH x MAX_HEIGHT, aspect kept."""
    height, width = pixels.shape[:2]
    scale = min(WIDTH / width, MAX_HEIGHT / height)
    return canvas.resize_smooth(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))


def draw_grid(
    cells: Sequence[Sequence[NDArray[np.uint8]]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    captions: Captions | None = None,
) -> Image.Image:
    """A contact sheet.

    Args:
        cells: rows of pictures, uint8 [H, W, 3] of any sizes; a row may be shorter than the others.
        row_names: one for each row.
        column_names: one for each column.
        captions: like `cells`, a line for each picture or None; None for a sheet without such lines.

    Returns:
        The sheet, in RGB; a row is as high as its highest picture.
    """
    small = [[thumbnail(pixels) for pixels in row] for row in cells]
    side = max((_text.text_width(_fit(name, _NAME, _MAX_NAME), _NAME) for name in row_names), default=0)
    left, top = _MARGIN + side + 2 * _GAP, _MARGIN + 2 * _NAME
    below = _CAPTION_ROW if captions is not None else 0
    heights = [max((picture.shape[0] for picture in row), default=0) for row in small]
    columns = max([len(column_names), *(len(row) for row in small)])
    width = left + columns * (WIDTH + _GAP) - _GAP + _MARGIN
    height = top + sum(h + below + _GAP for h in heights) - _GAP + _MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for j, name in enumerate(column_names):
        _draw_centred(draw, left + j * (WIDTH + _GAP), top - _NAME, name, _NAME, INK)
    y = top
    for i, (name, row, row_height) in enumerate(zip(row_names, small, heights, strict=True)):
        _text.draw_text(draw, _MARGIN, y + row_height // 2, _fit(name, _NAME, _MAX_NAME), _NAME, INK)
        for j, picture in enumerate(row):
            x = left + j * (WIDTH + _GAP)
            corner = (x + (WIDTH - picture.shape[1]) // 2, y + (row_height - picture.shape[0]) // 2)
            sheet.paste(Image.fromarray(picture), corner)
            if captions is not None and (caption := captions[i][j]):
                _draw_centred(draw, x, y + row_height + below // 2, caption, _CAPTION, FAINT)
        y += row_height + below + _GAP
    return sheet


def _draw_centred(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, size: int, fill: str) -> None:
    """One line in the middle of the column that starts at `x`, cut if it is wider."""
    line = _fit(text, size, WIDTH)
    _text.draw_text(draw, x + (WIDTH - _text.text_width(line, size)) // 2, y, line, size, fill)


def _fit(text: str, size: int, width: int) -> str:
    return _text.ellipsize(_text.drawable(text, "?"), size, width)
