"""Sample predictions of a training run: each picture beside what was taught there, what is predicted and the truth."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from clipseg_cli.outputs import _canvas as canvas
from clipseg_cli.outputs._colors import class_colors, voc_palette
from clipseg_cli.outputs._grid import draw_grid, thumbnail
from clipseg_cli.outputs._legend import PAPER, Legend
from clipseg_cli.outputs.overlay import tint
from clipseg_cli.types import ClassShare
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types import ClassList

_COLUMNS = ("taught", "prediction", "ground truth")
_GREY = np.full((1, 3), 176, np.uint8)
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
    """Write the sheet as PNG: a row for each picture, with a legend of the classes that occur.

    A column that nobody has anything for is left out.

    Args:
        rows: plain tuples of the same five are fine.
        classes: what the labels mean.
        path: of the file.

    Raises:
        OutputError: the file cannot be written.
    """
    rows = [PredictionRow(*row) for row in rows]
    total = len(classes)
    colors = voc_palette()[:total] if total <= 255 else class_colors(total, classes.background)
    colors = np.concatenate([colors, _GREY])  # the last is that of no label
    maps = [[_ids(labels, total) for labels in row[2:]] for row in rows]
    shown = [i for i in range(len(_COLUMNS)) if any(row[i] is not None for row in maps)]
    cells = []
    for row, ids in zip(rows, maps, strict=True):
        small = thumbnail(row.image)
        cells.append([small, *(_labelled(small, ids[i], colors, classes.background) for i in shown)])
    sheet = draw_grid(cells, [row.name for row in rows], ["image", *(_COLUMNS[i] for i in shown)])
    present = sum(
        (np.bincount(ids.ravel(), minlength=total + 1) for row in maps for ids in row if ids is not None),
        start=np.zeros(total + 1, np.int64),
    )
    if present.any():
        sheet = _with_legend(sheet, present, colors, (*classes.names, "(no label)"))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return write_bytes(path, buffer.getvalue())


def _ids(labels: NDArray[np.integer] | None, total: int) -> NDArray[np.uint16] | None:
    """Labels [H, W] with `total` for each that is no class."""
    if labels is None:
        return None
    return np.where((labels < 0) | (labels >= total), total, labels).astype(np.uint16)


def _labelled(
    small: NDArray[np.uint8],
    ids: NDArray[np.uint16] | None,
    colors: NDArray[np.uint8],
    background: int | None,
) -> NDArray[np.uint8]:
    """The picture uint8 [h, w, 3] tinted by its labels, striped where there is none; white without labels."""
    size = small.shape[0], small.shape[1]
    if ids is None:
        return np.full_like(small, 255)
    ids = np.asarray(canvas.resize_labels(ids, size), np.uint16)
    stripes = np.add.outer(np.arange(size[0]), np.arange(size[1])) % 6 < 2
    hatch = np.where(stripes[..., None], _GREY, np.uint8(255))
    return np.where((ids == len(colors) - 1)[..., None], hatch, tint(small, ids, colors, background))


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
