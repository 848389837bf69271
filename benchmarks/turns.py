"""Candidates measured by turns in one process, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time, "own": time.thread_time}
"""`cpu` counts the seconds of all threads: what to look at where other work shares the cores; `own` those of one."""


class Beside(NamedTuple):
    """Two candidates by one clock.

    Attributes:
        seconds: name -> the median.
        ratio: first over second, the median of those of each two turns beside each other.
    """

    seconds: dict[str, float]
    ratio: float


def beside(
    candidates: Mapping[str, Callable[[], object]], turns: int, clocks: Sequence[str]
) -> dict[str, Beside]:
    """Two candidates by turns; name of a clock -> what it says. One more turn goes ahead, which is not counted.

    They change places after each turn: whoever comes second meets a warm cache, and a machine that may have slowed
    down.
    """
    first, second = candidates
    taken: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in candidates} for clock in clocks}
    for turn in range(turns + 1):
        for name in (first, second) if turn % 2 else (second, first):
            before = [CLOCKS[clock]() for clock in clocks]
            seconds_of(candidates[name])
            after = [CLOCKS[clock]() for clock in clocks]
            for clock, start, end in zip(clocks, before, after, strict=True):
                if turn:
                    taken[clock][name].append(end - start)
    return {
        clock: Beside(
            {name: statistics.median(seconds) for name, seconds in each.items()},
            statistics.median(a / b for a, b in zip(each[first], each[second], strict=True)),
        )
        for clock, each in taken.items()
    }


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
