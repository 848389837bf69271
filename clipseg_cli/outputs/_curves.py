"""Curves of a training run: the loss, the learning rate and the mIoU."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import cv2
import numpy as np

from clipseg_cli.outputs._chart import GRID, new_figure, quiet, set_words, write_chart
from clipseg_cli.outputs._text import FAINT, INK, PAPER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Steps = Sequence[tuple[int, float, float, str]]

_LOSS, _RATE, _SCORE, _MARK = "#0072b2", "#6b6b6b", "#009e73", "#d55e00"  # three of Okabe & Ito's, and grey
_BOX = {"boxstyle": "square,pad=0.15", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.75}
_MAX_POINTS = 3000  # more are one blot, and take long
_LOGARITHMIC = 30  # a mean loss that changes by more than this factor


def draw_curves(steps: Steps, scores: Sequence[tuple[int, float]], path: Path) -> Path:
    """Write `curves_figure` as PNG of 1200 x 450 pixels; equal input makes equal bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    return write_chart(curves_figure(steps, scores), path)


def curves_figure(steps: Steps, scores: Sequence[tuple[int, float]]) -> Figure:
    """The loss of each step with its running mean, the learning rate, and the mIoU of each validation.

    A dotted line stands where the stage changes, with the name of the new one; the mean does not look across it.

    Args:
        steps: iteration (how many are done), loss, learning rate and stage (where the labels came from) of each.
        scores: iteration and mIoU in [0, 1] of each validation. Both are in order and may be empty; losses that are
            not finite are counted.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(1200, 450)
    figure.set_layout_engine("constrained", wspace=0.03, h_pad=0.12, w_pad=0.12)
    panels = figure.subplots(1, 3, width_ratios=[6, 2.5, 6])
    stages = [list(group) for _, group in groupby(steps, key=lambda step: step[3])]
    last = max([1, *(step[0] for step in steps), *(score[0] for score in scores)])
    titles = (("loss", _LOSS), ("learning rate", _RATE), ("mIoU on the validation images, %", _SCORE))
    for axes, (title, color) in zip(panels, titles, strict=True):
        axes.set_title(title, loc="left", color=color)
        axes.set_xlabel("iteration", color=FAINT)
        axes.set_xlim(0, 1.03 * last)
        bins = 3 if axes is panels[1] else 8
        axes.xaxis.set_major_locator(MaxNLocator(nbins=bins, integer=True, steps=[1, 2, 5, 10]))
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        for stage in stages[1:]:
            axes.axvline(stage[0][0] - 0.5, color="#b4b4b4", linestyle=(0, (1, 2)), linewidth=1.5)
    _draw_loss(panels[0], stages)
    _draw_rate(panels[1], steps)
    _draw_miou(panels[2], scores)
    for stage in stages[1:]:
        place = panels[0].get_xaxis_transform()
        name = panels[0].text(stage[0][0] + 0.01 * last, 0.03, "", color=FAINT, transform=place, bbox=_BOX)
        set_words(name, stage[0][3])
    for axes in panels:
        quiet(axes)
    return figure


def _draw_loss(axes: Axes, stages: Sequence[Steps]) -> None:
    total = sum(map(len, stages))
    finite = [np.array([step[:2] for step in stage if np.isfinite(step[1])]) for stage in stages]
    finite = [points for points in finite if len(points)]
    if not finite:
        _empty(axes, "no finite loss" if total else "no iteration yet")
        return
    x, y = np.concatenate(finite)[:: -(-total // _MAX_POINTS)].T
    size, alpha = (5, 0.22) if total > 100 else (9, 0.5)
    axes.plot(x, y, ".", color=_LOSS, alpha=alpha, markersize=size, markeredgewidth=0)
    wide = 2 * (total // 50) + 1
    means = [cv2.blur(points[:, 1][None], (wide, 1))[0] for points in finite]
    for points, mean in zip(finite, means, strict=True):
        marker = "." if len(points) == 1 else ""
        axes.plot(points[:, 0], mean, color=_LOSS, linewidth=1.8, solid_capstyle="round", marker=marker)
    mean = np.concatenate(means)
    if 1e-99 < mean.min() < mean.max() / _LOGARITHMIC < 1e99:  # matplotlib's margin of 600 decades overflows
        axes.set_yscale("log")
    if missing := total - sum(map(len, finite)):
        text = f"{missing} of {total} are not finite"
        axes.text(0.985, 0.96, text, color=_MARK, ha="right", va="top", transform=axes.transAxes, bbox=_BOX)


def _draw_rate(axes: Axes, steps: Steps) -> None:
    rates = np.array([step[2] for step in steps])
    if not np.isfinite(rates).any():
        _empty(axes, "")
        return
    axes.plot([step[0] for step in steps], rates, color=_RATE, marker="." if len(steps) == 1 else "")
    axes.set_ylim(0, 1.1 * np.nanmax(rates, where=np.isfinite(rates), initial=1e-12))
    axes.locator_params(axis="y", nbins=5, steps=[1, 2, 2.5, 5, 10])
    axes.yaxis.set_major_formatter("{x:g}")


def _draw_miou(axes: Axes, scores: Sequence[tuple[int, float]]) -> None:
    """The best one is a larger dot with its number."""
    finite = [(iteration, 100 * miou) for iteration, miou in scores if np.isfinite(miou)]
    if not finite:
        _empty(axes, "no score" if scores else "no validation yet")
        return
    x, y = zip(*finite, strict=True)
    axes.plot(x, y, "o-", color=_SCORE, linewidth=1.8, markersize=5)
    room = max(1.0, 0.12 * (max(y) - min(y)))  # for the number above the highest point
    axes.set_ylim(max(0.0, min(y) - room), max(y) + 1.6 * room)
    best = max(finite, key=lambda score: score[1])
    axes.plot(*best, "o", color=_SCORE, markersize=9)
    above = best[0], best[1] + 0.4 * room
    axes.text(*above, f"{best[1]:.1f}", color=INK, fontweight="bold", ha="center", bbox=_BOX)


def _empty(axes: Axes, text: str) -> None:
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, color=FAINT, ha="center", va="center", transform=axes.transAxes)
