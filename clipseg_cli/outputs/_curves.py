"""Curves of a training run: the loss and the learning rate, and the mIoU beside that of the teacher."""

from __future__ import annotations

import io
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

import numpy as np

from clipseg_cli.outputs._legend import FAINT, INK, PAPER
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_LOSS, _SCORE, _OTHER, _GRID = "#0072b2", "#009e73", "#d55e00", "#e4e4e4"  # Okabe & Ito, and a light grey
_MAX_POINTS = 3000  # more are one blot, and take long
_DECADES = 30  # a loss that falls by more than this factor is drawn on a logarithmic axis


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
    teacher: float | None,
) -> None:
    """Write the curves as PNG of 1200 x 450 pixels; equal input makes equal bytes.

    Args:
        steps, validations: in order of their iterations; either may be empty.
        path: of the file.
        switch: first iteration of the second stage, or None.
        teacher: its mIoU in [0, 1], or None.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), dpi=100, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)  # takes the figure, so that nothing else is asked to draw it
    left, right = figure.subplots(1, 2)
    last = max([1, *(s.iteration for s in steps), *(v.iteration for v in validations)])
    for axes, title in ((left, "loss"), (right, "mIoU on the validation pictures, %")):
        _prepare(axes, title, last, switch)
    _draw_loss(left, steps)
    _draw_miou(right, validations, teacher)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _prepare(axes: Axes, title: str, last: int, switch: int | None) -> None:
    axes.set_title(title, loc="left", color=INK)
    axes.set_xlabel("iteration", color=FAINT)
    axes.set_xlim(0, 1.03 * last)
    axes.grid(color=_GRID)
    axes.tick_params(colors=FAINT)
    if switch is not None:
        axes.axvline(switch - 0.5, color=FAINT, linestyle=":")


def _draw_loss(axes: Axes, steps: Sequence[StepLike]) -> None:
    for _, group in groupby(steps, key=lambda s: s.stage):
        part = list(group)
        x, y = np.array([s.iteration for s in part]), np.array([s.loss for s in part], np.float64)
        thin = max(1, len(steps) // _MAX_POINTS)
        axes.plot(x[::thin], y[::thin], ".", color=_LOSS, alpha=0.25)
        axes.plot(x, _running_mean(y, max(1, len(steps) // 40)), color=_LOSS)
    rate = axes.twinx()
    rate.plot([s.iteration for s in steps], [s.rate for s in steps], color=FAINT, alpha=0.5)


def _draw_miou(axes: Axes, validations: Sequence[ValidationLike], teacher: float | None) -> None:
    x = [v.iteration for v in validations]
    axes.plot(x, [100 * v.miou for v in validations], "o-", color=_SCORE)
    if teacher is not None:
        axes.axhline(100 * teacher, color=_OTHER, linestyle="--")


def _running_mean(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Mean of the finite values at most `reach` places away: [N]; NaN where there is none."""
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    first = np.maximum(np.arange(len(values)) - reach, 0)
    end = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = (sums[end] - sums[first]) / (counts[end] - counts[first])
    return mean
