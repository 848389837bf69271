"""Samples of noise, batches of them, and what is in these."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipseg_cli.errors import ImageError
from clipseg_cli.ops.augment import CropSpec
from clipseg_cli.training.batches import Batch, Batches
from clipseg_cli.utils.distributed import Share

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC = CropSpec(crop=16, short_side=20, long_side=80, scale=(0.5, 2.0), max_share=0.75)
WHOLE = dataclasses.replace(SPEC, short_side=0, scale=(1.0, 1.0), flip=0.0, distort=False)
"""Takes a picture of 16x16 as it is."""


class Noise:
    """Pictures of noise with labels of noise; the label in the corner of a picture is its number."""

    def __init__(self, count: int, *, proposed: bool = True, side: int = 16) -> None:
        self.count, self.proposed, self.side = count, proposed, side
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        self.asked.append(index)
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (self.side, self.side, 3), dtype=np.uint8)
        given = rng.integers(0, 5, (self.side, self.side), dtype=np.int32)
        given[0, 0] = index
        image.setflags(write=False)  # as a decoder may hand it out
        return image, given, given + 100 if self.proposed else None

    def name(self, index: int) -> str:
        return f"picture {index}"


class Damaged(Noise):
    """Some of the pictures cannot be read."""

    def __init__(self, count: int, broken: set[int]) -> None:
        super().__init__(count)
        self.broken = broken

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        if index in self.broken:
            raise ImageError(f"{self.name(index)}: damaged")
        return super().__call__(index)


class Failing(Noise):
    """The program itself is at fault, or somebody pressed Ctrl-C."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(5)
        self.error = error

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        raise self.error


class Slow(Noise):
    """Some pictures take their time."""

    def __init__(self, count: int, seconds: float, slow: set[int]) -> None:
        super().__init__(count)
        self.seconds, self.slow = seconds, slow

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        if index in self.slow:
            time.sleep(self.seconds)
        return super().__call__(index)


def is_even(index: int) -> bool:
    """Whose labels are by human hand."""
    return index % 2 == 0


def take(
    count: int,
    source: Noise,
    spec: CropSpec = SPEC,
    *,
    batch_size: int = 4,
    rank: tuple[int, int] = (0, 1),
    seed: int = 0,
    start: int = 0,
    workers: int = 2,
    by_human: Callable[[int], bool] | None = is_even,
) -> list[Batch]:
    share = Share(*rank)
    with Batches(
        source,
        spec,
        batch_size=batch_size,
        share=share,
        seed=seed,
        start=start,
        workers=workers,
        by_human=by_human,
    ) as batches:
        return list(itertools.islice(batches, count))


def numbers(batches: list[Batch]) -> list[int]:
    """Which pictures there are, in order; for WHOLE."""
    return [int(number) for batch in batches for number in batch.given[:, 0, 0]]


def equal(some: list[Batch], others: list[Batch]) -> bool:
    return all(
        torch.equal(one, other)
        for a, b in zip(some, others, strict=True)
        for one, other in zip(a, b, strict=True)
    )


def crop_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("crop", "batch"))]
