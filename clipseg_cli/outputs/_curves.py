"""Curves of a training run: the loss, the learning rate and the mIoU."""

from __future__ import annotations

import io
from itertools import groupby
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from clipseg_cli.outputs._legend import FAINT, INK, PAPER
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform
    from numpy.typing import NDArray

_LOSS, _SCORE, _MARK = "#0072b2", "#009e73", "#d55e00"  # Okabe & Ito
_GRID, _RATE = "#ececec", "#b4b4b4"
_WIDTH, _HEIGHT, _DPI = 1200, 450, 100
_MAX_POINTS = 3000  # more are one blot, and take long
_LOGARITHMIC = 30  # a mean loss that changes by more than this factor


class StepLike(Protocol):
    """What is drawn of an iteration."""

    @property
    def iteration(self) -> int:
        """How many are done."""

    @property
    def loss(self) -> float:
        """May be NaN."""

    @property
    def rate(self) -> float:
        """Learning rate."""

    @property
    def stage(self) -> str:
        """Where the labels came from."""


class ValidationLike(Protocol):
    """What is drawn of a validation."""

    @property
    def iteration(self) -> int:
        """How many were done."""

    @property
    def miou(self) -> float:
        """In [0, 1]; may be NaN."""


def draw_curves(
    steps: Sequence[StepLike],
    validations: Sequence[ValidationLike],
    path: Path,
    *,
    switch: int | None,
) -> None:
    """Write the curves as PNG of 1200 x 450 pixels; equal input makes equal bytes.

    On the left stands the loss of each step with its running mean, which does not look across a change of stage, and
    faintly the learning rate; on the right the mIoU of each validation.

    Args:
        steps, validations: in order of their iterations; either may be empty.
        path: of the file.
        switch: first iteration of the second stage, or None.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((_WIDTH / _DPI, _HEIGHT / _DPI), _DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)  # becomes the canvas of this figure; pyplot would change that of the process
    figure.subplots_adjust(left=0.055, right=0.985, bottom=0.125, top=0.915, wspace=0.2)
    left, right = figure.subplots(1, 2)
    last = max([1, *(s.iteration for s in steps), *(v.iteration for v in validations)])
    for axes in (left, right):
        _prepare(axes, last)
        if switch is not None:
            axes.axvline(switch - 0.5, color=_RATE, linestyle=(0, (1, 2)), linewidth=1.5)
    _draw_loss(left, steps)
    _draw_rate(left, steps)
    _draw_miou(right, validations)
    stage = next((s.stage for s in steps if switch is not None and s.iteration >= switch), None)
    if switch is not None and stage:
        _note(left, (switch - 0.5, 0.04), stage, FAINT, left.get_xaxis_transform(), (6, 0))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor=PAPER, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _prepare(axes: Axes, last: int) -> None:
    """Every colour is set, since a user's own style may be for dark paper."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("iteration", color=FAINT)
    axes.set_xlim(0, 1.03 * last)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.set_facecolor(PAPER)
    axes.tick_params(axis="both", which="both", length=0, labelcolor=FAINT)
    for spine in axes.spines.values():
        spine.set_color(_GRID)


def _draw_loss(axes: Axes, steps: Sequence[StepLike]) -> None:
    axes.set_title("loss", loc="left", color=_LOSS)
    loss = np.array([s.loss for s in steps], np.float64)
    finite = np.isfinite(loss)
    if not finite.any():
        _empty(axes, "no finite loss" if len(steps) else "no iteration yet")
        return
    thin, reach = -(-len(steps) // _MAX_POINTS), len(steps) // 50
    x = np.array([s.iteration for s in steps])
    size, alpha = (5, 0.22) if len(steps) > 100 else (9, 0.5)
    axes.plot(x[::thin], loss[::thin], ".", color=_LOSS, alpha=alpha, markersize=size, markeredgewidth=0)
    means = []
    for _, group in groupby(range(len(steps)), key=lambda i: steps[i].stage):
        part = list(group)
        means.append(_running_mean(loss[part], reach))
        marker = "." if len(part) == 1 else ""
        axes.plot(x[part], means[-1], color=_LOSS, linewidth=1.8, solid_capstyle="round", marker=marker)
    mean = np.concatenate(means)
    mean = mean[np.isfinite(mean)]
    if mean.min() > 0 and mean.max() > _LOGARITHMIC * mean.min():
        axes.set_yscale("log")
    _plain(axes)
    if missing := int((~finite).sum()):
        text = f"{missing} of {len(steps)} are not finite"
        _note(axes, (0.985, 0.96), text, _MARK, axes.transAxes, ha="right", va="top")


def _draw_rate(axes: Axes, steps: Sequence[StepLike]) -> None:
    """On an axis of its own at the right, behind the loss."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if not any(np.isfinite(s.rate) and s.rate > 0 for s in steps):
        return
    behind = axes.twinx()
    behind.set_zorder(axes.get_zorder() - 1)
    axes.patch.set_visible(False)
    marker = "." if len(steps) == 1 else ""
    behind.plot(
        [s.iteration for s in steps], [s.rate for s in steps], color=_RATE, linewidth=1, marker=marker
    )
    behind.set_ylim(0, 1.05 * max(s.rate for s in steps if np.isfinite(s.rate)))
    behind.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    behind.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    behind.set_title("learning rate", loc="right", color=_RATE)
    _plain(behind)
    behind.tick_params(labelcolor=_RATE)


def _draw_miou(axes: Axes, validations: Sequence[ValidationLike]) -> None:
    axes.set_title("mIoU on the validation pictures, %", loc="left", color=_SCORE)
    scored = [(v.iteration, 100 * v.miou) for v in validations if np.isfinite(v.miou)]
    if not scored:
        _empty(axes, "no score" if len(validations) else "no validation yet")
        return
    x, y = zip(*scored, strict=True)
    axes.plot(x, y, "o-", color=_SCORE, linewidth=1.8, markersize=5)
    room = max(1.0, 0.12 * (max(y) - min(y)))  # for the number above the highest point
    axes.set_ylim(max(0.0, min(y) - room), max(y) + 1.6 * room)
    best = int(np.argmax(y))
    axes.plot(x[best], y[best], "o", color=_SCORE, markersize=9)
    above, text = (x[best], y[best]), f"{y[best]:.1f}"
    _note(axes, above, text, INK, axes.transData, (0, 13), ha="center", weight="bold")


def _empty(axes: Axes, text: str) -> None:
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, color=FAINT, ha="center", va="center", transform=axes.transAxes)


def _note(
    axes: Axes,
    at: tuple[float, float],
    text: str,
    color: str,
    transform: Transform,
    offset: tuple[int, int] = (0, 0),
    *,
    ha: Literal["left", "center", "right"] = "left",
    va: Literal["center", "top"] = "center",
    weight: str = "normal",
) -> None:
    """Words beside a point, `offset` in points from it, on a piece of paper that keeps them readable."""
    axes.annotate(
        text,
        at,
        offset,
        xycoords=transform,
        textcoords="offset points",
        color=color,
        ha=ha,
        va=va,
        fontsize=10,
        fontweight=weight,
        bbox={"boxstyle": "square,pad=0.15", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.75},
    )


def _running_mean(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Mean of the finite values at most `reach` places away: [N]; NaN where there is none.

    Near the ends it reaches less far, about as far to the left as to the right: a slope is not flattened there.
    """
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    at = np.arange(len(values))
    reaches = np.clip(np.minimum(at, at[::-1]), reach // 3, reach)
    first, end = np.maximum(at - reaches, 0), np.minimum(at + reaches + 1, len(values))
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = (sums[end] - sums[first]) / (counts[end] - counts[first])
    return mean
