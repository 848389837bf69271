"""The confusion matrix as a chart: which classes are taken for which others, and the IoU of each."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.outputs._chart import DPI, GRID, new_figure, quiet, set_words
from clipseg_cli.outputs._text import FAINT, INK, drawable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from clipseg_cli.types import ClassList

MOST = 300
"""More classes make an image that no viewer opens; those with the most labelled pixels are shown."""

SMALLEST, LARGEST, _WISHED = 14, 112, 1080  # pixels: a cell, a cell, the whole matrix
_NUMBERS, _DECIMALS = 25, 44  # cells that hold a number, and one with a decimal
_LONGEST = 28  # characters of a name
_WHITE_FROM = 35  # per cent from which on white letters are read more easily
_ABSENT, _RIGHT, _BAR, _LINE = "#ececec", "#d55e00", "#c6dbef", "#b4b4b4"


def confusion_figure(
    confusion: NDArray[np.int64], iou: Sequence[float | None], classes: ClassList, title: str
) -> Figure:
    """Rows are the truth and sum to 100 %, columns are the prediction; bars on the right are the IoU of each class.

    Args:
        confusion: [C, C + 1] pixels, row = truth, last column = predicted as no class; it gets a column only
            if it has a pixel.
        iou: [C] in [0, 1]; None for classes that are neither labelled nor predicted.
        classes: names of the C classes, at least one.
        title: long ones are broken into lines.

    Returns:
        A figure of the matrix alone; names, title and bars lie outside, for `write_chart(tight=True)`.
    """
    shown, names, percent = _table(confusion, classes)
    rows, columns = percent.shape
    cell = min(LARGEST, max(SMALLEST, _WISHED // max(rows, 4)))
    figure = new_figure(columns * cell, rows * cell)
    axes = figure.add_axes((0, 0, 1, 1))
    letters = min(15, cell - 1) * 72 / DPI
    _draw_matrix(axes, percent, cell, letters)
    _draw_names(axes, names, np.isnan(percent[:, 0]), cell, letters)

    head = max(13.0, columns * cell / 110)
    said = "% of the pixels with that label"
    if rows < len(classes):
        said = f"the {rows} most frequent of {len(classes)} classes; {said}"
    if np.isnan(percent).any():
        said += "; grey: no pixel has it"
    axes.set_xlabel(f"prediction, in {said}", color=FAINT, fontsize=0.8 * head, loc="left", labelpad=10)
    axes.set_ylabel("truth", color=FAINT, fontsize=0.8 * head, loc="top")
    wide = max(60, round(columns * cell / head))
    heading = axes.set_title("", color=INK, fontsize=head, loc="left", pad=12)
    set_words(heading, title, "confusion matrix")
    heading.set_text(textwrap.fill(heading.get_text(), wide, max_lines=4, placeholder=" …"))
    _draw_iou(figure, axes, [iou[i] for i in shown], cell, letters)
    return figure


def _table(
    confusion: NDArray[np.int64], classes: ClassList
) -> tuple[NDArray[np.intp], list[str], NDArray[np.float64]]:
    """Ids of the R rows, names of the K columns, the first R of which are the rows, and per cent [R, K].

    The rows of classes that nobody labelled are NaN.
    """
    labelled = confusion.sum(axis=1)
    shown = np.sort(np.argsort(-labelled, kind="stable")[:MOST])
    inside = confusion[:, shown]
    others = confusion[:, :-1].sum(axis=1) - inside.sum(axis=1)
    pixels = np.column_stack([inside, others, confusion[:, -1]])[shown]
    kept = np.r_[np.full(len(shown), True), pixels[:, -2:].any(axis=0)]
    names = [drawable(classes.names[i], f"class {i}")[0] for i in shown] + ["other classes", "no class"]
    with np.errstate(invalid="ignore"):
        percent = 100 * pixels[:, kept] / labelled[shown, None]
    return shown, [name for name, keep in zip(names, kept, strict=True) if keep], percent


def _draw_matrix(axes: Axes, percent: NDArray[np.float64], cell: int, letters: float) -> None:
    """Cells, numbers where they are large enough (none where they would round to nothing), and the diagonal."""
    import matplotlib as mpl
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Rectangle

    rows, columns = percent.shape
    axes.pcolormesh(
        np.ma.masked_invalid(percent),
        cmap=mpl.colormaps["Blues"].with_extremes(bad=_ABSENT),
        norm=PowerNorm(0.5, 0, 100),  # the root keeps confusions of a few per cent visible
        edgecolors=GRID,
        linewidth=0.6,
    )
    axes.set(xlim=(0, columns), ylim=(rows, 0))  # the first class at the top
    frames = [Rectangle((i, i), 1, 1) for i in range(rows)]
    axes.add_collection(
        PatchCollection(frames, facecolor="none", edgecolor=_RIGHT, linewidth=0.6 + cell / 100, clip_on=False)
    )
    for at in range(10, rows if rows > 30 else 0, 10):
        axes.axhline(at, color=_LINE, linewidth=0.6)
        axes.axvline(at, color=_LINE, linewidth=0.6)
    if cell < _NUMBERS:
        return
    decimals = int(cell >= _DECIMALS)
    for row, column in np.argwhere(np.nan_to_num(percent) >= 0.5 * 10.0**-decimals).tolist():
        value = percent[row, column]
        text = axes.text(column + 0.5, row + 0.5, f"{value:.{decimals}f}", fontsize=0.9 * letters)
        text.set(color="white" if value > _WHITE_FROM else INK, ha="center", va="center_baseline")


def _draw_names(axes: Axes, names: list[str], absent: NDArray[np.bool_], cell: int, letters: float) -> None:
    """Names on both axes, and a second time below a matrix that is too tall to see at once."""
    quiet(axes)
    short = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1].rstrip()}…" for name in names]
    upright = max(map(len, short)) * letters < 1.1 * cell
    at = np.arange(len(names)) + 0.5
    axes.set_xticks(at, short, rotation=0 if upright else 90, fontsize=letters)
    axes.set_yticks(at[: len(absent)], short[: len(absent)], fontsize=letters)
    axes.xaxis.set_label_position("top")
    axes.tick_params(axis="x", labeltop=True, labelbottom=cell < _NUMBERS, pad=4)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        for i, label in enumerate(labels):
            place = i % len(at)
            set_words(label, label.get_text())
            label.set_color(FAINT if place >= len(absent) or absent[place] else INK)


def _draw_iou(figure: Figure, axes: Axes, iou: Sequence[float | None], cell: int, letters: float) -> None:
    """Bars to the right of the matrix, and for cells without numbers its scale."""
    width, height = figure.get_size_inches() * DPI
    bar = max(120, width / 12)
    beside = figure.add_axes(((width + 30) / width, 0, bar / width, 1), sharey=axes)
    quiet(beside)
    beside.set(xlim=(0, 100), xticks=[])
    beside.tick_params(labelleft=False)
    for side in ("top", "bottom", "right"):
        beside.spines[side].set_visible(False)
    bars = beside.barh(
        np.arange(len(iou)) + 0.5, [100 * (value or 0) for value in iou], height=0.7, color=_BAR
    )
    values = ["–" if value is None else f"{100 * value:.1f}" for value in iou]
    beside.bar_label(bars, values, padding=3, color=INK, fontsize=letters)
    beside.set_title("IoU, %", color=FAINT, fontsize=letters, loc="left", pad=4)
    if cell < _NUMBERS:
        tall = min(320.0, height)
        left = width + bar + 110
        scale = figure.add_axes((left / width, 1 - tall / height, 22 / width, tall / height))
        figure.colorbar(axes.collections[0], cax=scale, ticks=[0, 1, 5, 10, 25, 50, 100], format="%g %%")
        quiet(scale)
