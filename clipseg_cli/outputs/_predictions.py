"""Sheets of pictures beside label maps of them: samples of a training run, or what several methods say."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from clipseg_cli.config import IGNORE_INDEX
from clipseg_cli.errors import ShapeError
from clipseg_cli.outputs import _canvas as canvas
from clipseg_cli.outputs._colors import class_colors, voc_palette
from clipseg_cli.outputs._grid import draw_grid, thumbnail
from clipseg_cli.outputs._legend import PAPER, Legend
from clipseg_cli.types import ClassShare
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types import ClassList

    LabelRow = tuple[str, NDArray[np.uint8], Sequence[NDArray[np.integer] | None]]

_COLUMNS = ("taught", "prediction", "ground truth")
_GREY = np.full((1, 3), 176, np.uint8)  # stripes on white: no label
_LETTERS = 14


class PredictionRow(NamedTuple):
    """One picture and what is known about it; a label below 0 or beyond the classes is none.

    Attributes:
        name: of the picture.
        image: uint8 [H, W, 3].
        target: [H, W] what the student was taught there, or None.
        prediction: [H, W].
        truth: [H, W], or None.
    """

    name: str
    image: NDArray[np.uint8]
    target: NDArray[np.integer] | None
    prediction: NDArray[np.integer]
    truth: NDArray[np.integer] | None


def write_predictions(rows: Sequence[PredictionRow], classes: ClassList, path: Path) -> Path:
    """`write_label_sheet` of a training run.

    Args:
        rows: plain tuples of the same five are fine.
        classes, path: as there.
    """
    return write_label_sheet([(row[0], row[1], row[2:]) for row in rows], _COLUMNS, classes, path)


def write_label_sheet(
    rows: Sequence[LabelRow], columns: Sequence[str], classes: ClassList, path: Path
) -> Path:
    """Write a sheet as PNG: a row for each picture, with a legend of the classes that occur.

    Labels have the colours of label files, which are those of PASCAL VOC up to 255 classes; where there is none the
    sheet is striped. A column that is empty in all rows is left out.

    Args:
        rows: (name, picture uint8 [H, W, 3], labels [H, W] or None for each column).
        columns: names of the label maps.
        classes: what the labels mean.
        path: of the file.

    Raises:
        OutputError: the file cannot be written.
        ShapeError: labels are not of the size of their picture.
    """
    total = len(classes)
    colors = voc_palette()[:total] if total <= IGNORE_INDEX else class_colors(total, classes.background)
    colors = np.concatenate([colors, _GREY])  # the last is that of no label
    maps = [[_ids(name, image, labels, total) for labels in given] for name, image, given in rows]
    shown = [i for i in range(len(columns)) if any(row[i] is not None for row in maps)]
    cells = []
    for (_, image, _), ids in zip(rows, maps, strict=True):
        small = thumbnail(image)
        cells.append([small, *(_painted(ids[i], colors, small.shape[:2]) for i in shown)])
    sheet = draw_grid(cells, [name for name, _, _ in rows], ["image", *(columns[i] for i in shown)])
    present = sum(
        (np.bincount(ids.ravel(), minlength=total + 1) for row in maps for ids in row if ids is not None),
        start=np.zeros(total + 1, np.int64),
    )
    if present.any():
        sheet = _with_legend(sheet, present, colors, (*classes.names, "(no label)"))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return write_bytes(path, buffer.getvalue())


def _ids(
    name: str, image: NDArray[np.uint8], labels: NDArray[np.integer] | None, total: int
) -> NDArray[np.uint16] | None:
    """Labels [H, W] with `total` for each that is no class."""
    if labels is None:
        return None
    if labels.shape != image.shape[:2]:
        raise ShapeError(f"{name}: labels of {labels.shape} for a picture of {image.shape[:2]} pixels")
    return np.where((labels < 0) | (labels >= total), total, labels).astype(np.uint16)


def _painted(
    ids: NDArray[np.uint16] | None, colors: NDArray[np.uint8], size: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Labels in their colours, uint8 [h, w, 3]; striped where there is none, white for no labels at all."""
    height, width = size
    if ids is None:
        return np.full((height, width, 3), 255, np.uint8)
    ids = np.asarray(canvas.resize_labels(ids, (height, width)), np.uint16)
    gaps = np.add.outer(np.arange(height), np.arange(width)) % 6 >= 2
    painted = np.take(colors, ids, axis=0)
    painted[gaps & (ids == len(colors) - 1)] = 255
    return painted


def _with_legend(
    sheet: Image.Image, present: NDArray[np.int64], colors: NDArray[np.uint8], names: Sequence[str]
) -> Image.Image:
    """The sheet with a legend below; without shares, which would mix columns that are not comparable."""
    shares = [ClassShare(i, name, int(present[i]), 0.0, None) for i, name in enumerate(names)]
    legend = Legend.of(shares, colors, _LETTERS)
    legend = dataclasses.replace(
        legend, entries=tuple((color, name, "") for color, name, _ in legend.entries)
    )
    panel = legend.draw(columns=max(1, (sheet.width - legend.pad) // legend.column))
    whole = Image.new("RGB", (max(sheet.width, panel.width), sheet.height + panel.height), PAPER)
    whole.paste(sheet)
    whole.paste(panel, (0, sheet.height))
    return whole
