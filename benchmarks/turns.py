"""Candidates measured by turns in one process, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` counts the seconds of all threads: what to look at where other work shares the cores."""


def in_turns(
    candidates: Mapping[str, Callable[[], object]], repeats: int, clock: str = "wall"
) -> dict[str, float]:
    """Median seconds of each candidate.

    Args:
        candidates: name -> what is measured.
        repeats: rounds over all of them; one more goes ahead, which warms up and is not counted.
        clock: a name of `CLOCKS`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(repeats + 1):
        for name, candidate in candidates.items():
            taken = seconds_of(candidate, clock)
            if repeat:
                seconds[name].append(taken)
    return {name: statistics.median(values) for name, values in seconds.items()}


def seconds_of(call: Callable[[], object], clock: str = "wall") -> float:
    """Seconds of one call, with what it left to do on a GPU."""
    now = CLOCKS[clock]
    start = now()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return now() - start
