"""Sheets of small images in rows, with names, lines below them, and a legend of the classes."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from clipseg_cli.config import IGNORE_INDEX
from clipseg_cli.errors import ShapeError
from clipseg_cli.outputs import _canvas as canvas
from clipseg_cli.outputs._colors import class_colors, hex_color, voc_palette
from clipseg_cli.outputs._text import FAINT, INK, PAPER, Line, place
from clipseg_cli.types import ClassShare
from clipseg_cli.utils.files import write_bytes
from clipseg_cli.utils.text import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types import ClassList

WIDTH, MAX_HEIGHT = 160, 200
"""Of a small image, in pixels; a narrow one becomes narrower than WIDTH."""

_GAP, _MARGIN = 6, 20  # between the images, around the sheet
_TITLE, _NAME, _CAPTION = 22, 16, 13  # sizes of letters
_SIDE, _LEAST = 180, 850  # width of the names at the side at most, and of a sheet with a title at least
_GREY = np.full((1, 3), 176, np.uint8)  # stripes on white: no label, and no colour of any class
_MAX_ENTRIES = 24  # of a legend
_SPECK = 1e-4  # a share that nobody sees, such as one pixel of many


class LabelRow(NamedTuple):
    """An image and label maps of it.

    Attributes:
        name: of the image.
        image: uint8 [H, W, 3].
        maps: [H, W] each, or None; a label below 0 or beyond the classes is none.
    """

    name: str
    image: NDArray[np.uint8]
    maps: Sequence[NDArray[np.integer] | None]


def write_label_sheet(
    rows: Sequence[LabelRow], columns: Sequence[str], classes: ClassList, path: Path
) -> Path:
    """Write a sheet as PNG: a row for each image, with a legend of the classes that occur.

    Labels have the colours of label files, which are those of PASCAL VOC up to 255 classes; where there is none the
    sheet is striped. A column that is empty in all rows is left out.

    Args:
        rows: plain tuples of the same three are fine.
        columns: names of the label maps.
        classes: what the labels mean.
        path: of the file.

    Raises:
        OutputError: the file cannot be written.
        ShapeError: labels are not of the size of their image.
    """
    total = len(classes)
    colors = voc_palette()[:total] if total <= IGNORE_INDEX else class_colors(total, classes.background)
    colors = np.concatenate([colors, _GREY])
    shown = [i for i in range(len(columns)) if any(labels[i] is not None for _, _, labels in rows)]
    seen = np.zeros(total + 1, np.int64)
    cells: list[list[NDArray[np.uint8]]] = []
    for name, image, given in rows:
        small = thumbnail(image)
        row = [small]
        for labels in (given[i] for i in shown):
            if labels is None:
                row.append(np.full_like(small, 255))
                continue
            if labels.shape != image.shape[:2]:
                raise ShapeError(f"{name}: labels of {labels.shape} for an image of {image.shape[:2]} pixels")
            ids = _small_ids(labels, total, small)
            seen += np.bincount(ids.ravel(), minlength=total + 1)
            row.append(_striped(np.take(colors, ids, axis=0), ids == total))
        cells.append(row)
    # No shares, which would mix columns that are not comparable.
    words = (*classes.names, "(no label)")
    present = [ClassShare(i, word, int(seen[i]), 0, None) for i, word in enumerate(words)]
    legend = Legend(present, colors, 14, with_shares=False)
    heads = ["image", *(columns[i] for i in shown)]
    return write_sheet(path, cells, names=[row[0] for row in rows], columns=heads, legend=legend)


def write_contact_sheet(
    path: Path,
    images: Iterable[tuple[str, NDArray[np.uint8], NDArray[np.int32]]],
    classes: ClassList,
    shares: Sequence[ClassShare],
    title: str,
    ignored: float = 0.0,
) -> Path:
    """Write a sheet of a labelled data set as PNG: images beside their labels, and the share that each class took.

    Args:
        path: of the file.
        images: name, uint8 [H, W, 3] and labels [H, W] with -1 where there is none, which is striped.
        classes: what the labels mean.
        shares: of the whole data set, for the legend.
        title: first line.
        ignored: share of the pixels of the whole data set without a label, in [0, 1].

    Raises:
        OutputError: the file cannot be written.
    """
    total = len(classes)
    colors = np.concatenate([class_colors(total, classes.background), _GREY])
    names, tiles = [], []
    for name, image, labels in images:
        small = thumbnail(image, 200)
        ids = _small_ids(labels, total, small)
        tinted = _striped(canvas.tint(small, ids, colors, classes.background), ids == total)
        names.append(name)
        tiles.append(np.concatenate([small, tinted], axis=1))
    rows = list(shares)
    if ignored > 0:  # the legend orders by pixels, of which the shares alone tell the number
        labelled = sum(share.pixels for share in shares)
        pixels = round(labelled * ignored / (1 - ignored)) if ignored < 1 else 1
        rows.append(ClassShare(total, "(ignored)", max(1, pixels), ignored, None))
    fours = range(0, len(tiles), 4)
    grid, captions = [tiles[i : i + 4] for i in fours], [names[i : i + 4] for i in fours]
    return write_sheet(path, grid, captions=captions, title=title, legend=Legend(rows, colors, 16))


def thumbnail(pixels: NDArray[np.uint8], width: int = WIDTH) -> NDArray[np.uint8]:
    """The image [H, W, 3] as a sheet shows it: as large as fits in `width` x MAX_HEIGHT, aspect kept."""
    scale = min(width / pixels.shape[1], MAX_HEIGHT / pixels.shape[0])
    size = max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale))
    return canvas.resize_smooth(pixels, size)


def write_sheet(
    path: Path,
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    *,
    names: Sequence[str] = (),
    columns: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    title: str = "",
    legend: Legend | None = None,
) -> Path:
    """Write images as they are, each in the middle of its column and at the foot of its row, as one PNG.

    Args:
        path: of the file.
        rows: of images, uint8 [H, W, 3] of any sizes; a row may be shorter than the others.
        names: a word at the left of each row, or none.
        columns: a word above each column, or none.
        captions: like `rows`, a line below each image, or none.
        title: of the sheet.
        legend: below all.

    Raises:
        OutputError: the file cannot be written.
    """
    cell = max([WIDTH, *(image.shape[1] for row in rows for image in row)])
    count = max([1, len(columns), *(len(row) for row in rows)])
    sides = [Line.of(name, _NAME, _SIDE) for name in names]
    left = _MARGIN + max((side.width + 2 * _GAP for side in sides), default=0)
    width = max(left + count * (cell + _GAP) - _GAP + _MARGIN, _LEAST if title else 0)
    lines: list[tuple[Line, int, int, str]] = []
    pasted: list[tuple[Image.Image, int, int]] = []

    def centre(line: Line, j: int, y: int, ink: str) -> None:
        lines.append((line, left + j * (cell + _GAP) + (cell - line.width) // 2, y, ink))

    y = _MARGIN
    if title:
        lines.append((Line.of(title, _TITLE, width - 2 * _MARGIN), _MARGIN, y + _TITLE // 2, INK))
        y += 2 * _TITLE
    for j, name in enumerate(columns):
        centre(Line.of(name, _NAME, cell), j, y + _NAME // 2, INK)
    y += round(1.6 * _NAME) if columns else 0
    for i, row in enumerate(rows):
        height = max((image.shape[0] for image in row), default=0)
        if sides:
            lines.append((sides[i], _MARGIN, y + height // 2, INK))
        for j, image in enumerate(row):
            x = left + j * (cell + _GAP) + (cell - image.shape[1]) // 2
            pasted.append((Image.fromarray(image), x, y + height - image.shape[0]))
        y += height
        if captions:
            for j, caption in enumerate(captions[i]):
                centre(Line.of(caption, _CAPTION, cell), j, y + _CAPTION, FAINT)
            y += 2 * _CAPTION
        y += _GAP
    y += _MARGIN - _GAP if rows else 0
    if legend and legend.entries:
        panel = Image.fromarray(legend.draw(max(1, (width - 2 * _MARGIN + legend.row) // legend.column)))
        pasted.append((panel, _MARGIN - legend.pad, y - legend.pad // 2))
        width, y = max(width, panel.width), y - legend.pad // 2 + panel.height
    sheet = Image.new("RGB", (width, y), PAPER)
    draw = ImageDraw.Draw(sheet)
    for pasted_image, left_, top in pasted:
        sheet.paste(pasted_image, (left_, top))
    for line, x, middle, ink in lines:
        line.draw(draw, x, middle, ink)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=3)  # an eighth of the time of 9, 12 % more bytes
    return write_bytes(path, buffer.getvalue())


class Legend:
    """Colour, name and share of the classes, the largest first; specks, and what is too many, are one last entry.

    Args:
        shares: those without a pixel are left out.
        colors: uint8 [C, 3], by id.
        size: of the letters, in pixels.
        with_shares: whether they are printed.
    """

    def __init__(
        self,
        shares: Sequence[ClassShare],
        colors: NDArray[np.uint8],
        size: int,
        *,
        with_shares: bool = True,
    ) -> None:
        present = sorted((share for share in shares if share.pixels), key=lambda share: -share.pixels)
        least = _SPECK * sum(share.pixels for share in present)
        named = [share for i, share in enumerate(present) if not i or share.pixels >= least][:_MAX_ENTRIES]
        if len(named) == _MAX_ENTRIES < len(present):
            named.pop()
        if len(present) == len(named) + 1:
            named = present  # one more name takes no more room than "and 1 more"
        entries = [(hex_color(colors[s.id]), s.name, f"class {s.id}", s.share) for s in named]
        if rest := present[len(named) :]:
            entries.append((PAPER, f"and {len(rest)} more", "", sum(share.share for share in rest)))
        self.entries = [
            (color, Line.of(name, size, 14 * size, other), Line.of(percent(share), size))
            for color, name, other, share in entries
        ]
        self.with_shares, self.size, self.pad, self.row = (
            with_shares,
            size,
            round(0.9 * size),
            round(1.6 * size),
        )
        names = max((name.width for _, name, _ in self.entries), default=0)
        self.column = round(3.1 * size) + names + (size + Line.of("100.0%", size).width if with_shares else 0)

    def panel_size(self, columns: int) -> tuple[int, int]:
        """(width, height) of what `draw` gives."""
        rows = -(-len(self.entries) // columns)
        columns = -(-len(self.entries) // rows)
        gap = self.row  # after each column but the last
        return 2 * self.pad + columns * self.column - gap, 2 * self.pad + rows * self.row

    def draw(self, columns: int) -> NDArray[np.uint8]:
        """The panel, uint8 [H, W, 3]: entries in `columns`, read from top to bottom, or fewer if that fills them."""
        width, height = self.panel_size(columns)
        panel = np.full((height, width, 3), 255, np.uint8)
        self.draw_on(panel, columns)
        return panel

    def draw_on(self, paper: NDArray[np.uint8], columns: int) -> None:
        """`draw`, on white paper [H, W, 3] of that size."""
        rows = -(-len(self.entries) // columns)
        size, gap = self.size, self.row
        for i, (color, name, share) in enumerate(self.entries):
            x, y = self.pad + i // rows * self.column, self.pad + i % rows * self.row + self.row // 2
            place(_swatch(color, size), paper, x, y - size // 2)
            name.place(paper, x + round(1.5 * size), y, INK)
            if self.with_shares:
                share.place(paper, x + self.column - gap - share.width, y, FAINT)


@lru_cache(maxsize=1024)
def _swatch(color: str, size: int) -> NDArray[np.uint8]:
    """A patch of colour beside letters of a size, on paper: uint8 [size + 1, size + 1, 3]."""
    shape = Image.new("L", (size + 1, size + 1))
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, size, size), radius=size // 5, fill=255)
    swatch = Image.new("RGB", shape.size, PAPER)
    swatch.paste(color, (0, 0), shape)
    return np.array(swatch)


def _small_ids(
    labels: NDArray[np.integer], total: int, small: NDArray[np.uint8]
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Labels at the size of a small image, with `total` for each that is no class."""
    ids = np.where((labels < 0) | (labels >= total), total, labels).astype(np.uint16)
    return canvas.resize_labels(ids, (small.shape[0], small.shape[1]))


def _striped(pixels: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pixels [H, W, 3], grey and white stripes in their place where `where` [H, W] is."""
    height, width = where.shape
    stripes = np.add.outer(np.arange(height), np.arange(width))[..., None] % 6 < 2
    return np.where(where[..., None], np.where(stripes, _GREY, np.uint8(255)), pixels)
