"""What every evaluation has in common: conditions, one confusion matrix for each, sums over processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipseg_cli.data.corruptions import SEVERITIES, parse_corruptions
from clipseg_cli.errors import UsageError
from clipseg_cli.ops.metrics import score
from clipseg_cli.outputs import refuse_strangers
from clipseg_cli.runs.find import evaluation_name
from clipseg_cli.utils.distributed import gather_from_ranks, sum_over_ranks
from clipseg_cli.utils.files import check_writable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.config import EvalConfig, Protocol
    from clipseg_cli.errors import ClipsegError
    from clipseg_cli.ops.metrics import Scores
    from clipseg_cli.types import Dataset
    from clipseg_cli.utils.distributed import Share


@dataclass(frozen=True)
class Condition:
    """In what state the images are scored.

    Attributes:
        corruption: its name, or None for the images as they are.
        severity: 1 to 5; 0 for the images as they are.
    """

    corruption: str | None = None
    severity: int = 0

    def __str__(self) -> str:
        return "clean" if self.corruption is None else f"{self.corruption} {self.severity}"


CLEAN = Condition()


@dataclass(frozen=True)
class ScoredImage:
    """What became of one image under one condition.

    Attributes:
        image: its name in the data set.
        matrix: [C, C + 1] int64, see `ops.metrics`; None if it failed.
        error: why it failed.
    """

    image: str
    condition: int
    matrix: Tensor | None = None
    error: ClipsegError | None = None


def plan_conditions(config: EvalConfig) -> tuple[Condition, ...]:
    """The images as they are, and then every corruption in every severity.

    Raises:
        UsageError: an unknown corruption or severity.
    """
    if not config.severity:
        raise UsageError("--severity names none", hint="it counts upwards, as in 1..5")
    for severity in config.severity:
        if severity not in SEVERITIES:
            raise UsageError(
                f"severity {severity}: there are 1 to {SEVERITIES[-1]}", hint="1 is mild, 5 is strong"
            )
    names = parse_corruptions(config.corrupt)
    if config.corrupt and not names:
        raise UsageError("--corrupt is empty", hint="name a corruption, or all")
    return (CLEAN, *(Condition(name, severity) for name in names for severity in config.severity))


_MARKS = {"results.json": '"mIoU_seen"', "methods.json": '"rows"'}
"""What the beginning of a file of ours holds."""


def results_folder(config: EvalConfig, dataset: Dataset, predictions: Path | None = None) -> Path:
    """Where the results of an evaluation go, made sure of before the long work starts.

    Raises:
        OutputError: nothing can be written there, or results of something else lie there.
    """
    folder = config.out / (config.name or evaluation_name(dataset, config, predictions))
    check_writable(folder)
    for name, mark in _MARKS.items():
        refuse_strangers(folder / name, mark)
    return folder


@dataclass(eq=False, kw_only=True)
class Scoring:
    """Pixels counted so far, under every condition; the processes of torchrun add theirs up.

    Attributes:
        config: the options.
        dataset: what is scored.
        protocol: as it is on the benchmark.
        images: to be scored, over all shares.
        share: of the work.
        out: folder of the results.
        notes: what a user should be told once.
        unseen: ids of the unseen classes of a zero-shot split; may be empty.
        conditions: under which everything is scored.
        failures: image -> why it could not be scored; of all shares after `matrices`.
    """

    config: EvalConfig
    dataset: Dataset
    protocol: Protocol
    images: int
    share: Share
    out: Path
    notes: tuple[str, ...] = ()
    unseen: tuple[int, ...] = ()
    conditions: tuple[Condition, ...] = (CLEAN,)

    def __post_init__(self) -> None:
        self.failures: dict[str, str] = {}
        classes = len(self.dataset.classes)
        self._matrices = torch.zeros(len(self.conditions), classes, classes + 1, dtype=torch.int64)

    def matrices(self) -> list[NDArray[np.int64]]:
        """[C, C + 1] of each condition, over all ranks; exact, since integers are added."""
        total = sum_over_ranks(self._matrices, self.share)
        self.failures = dict(gather_from_ranks(list(self.failures.items()), self.share))
        return [matrix.numpy() for matrix in total]

    def scores(self, matrix: NDArray[np.int64]) -> Scores:
        """The scores of one condition, with the split into seen and unseen classes where there is one."""
        return score(torch.from_numpy(matrix), self.unseen)

    def _add(self, result: ScoredImage) -> ScoredImage:
        if result.matrix is not None:
            self._matrices[result.condition] += result.matrix.cpu()
        elif result.error is not None:
            self.failures[result.image] = result.error.message
        return result


def size_to_score(height: int, width: int, protocol: Protocol) -> tuple[int, int]:
    """(H, W) at which a protocol scores an image.

    As torchvision resizes to a short side: the long one is cut to whole pixels, not rounded.
    """
    short = protocol.score_short_side
    if short is None:
        return height, width
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short


def mean_corrupted(values: Sequence[float]) -> float:
    """Mean over corruptions and severities, each counting the same; NaN for none."""
    return float(np.mean(values)) if len(values) else float("nan")
