"""Parallel work whose results do not depend on how many threads there are.

One matrix product split over two threads rounds differently from the same product on one. So on a CPU we do not
split products: every piece of work runs on one thread, and several pieces run beside each other, in lanes. The
pieces must be cut in the same way each time; then a run on 64 cores, one that was interrupted and one that was shared
out between processes all agree to the last bit.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

_lock = threading.Lock()
_open = 0
_threads = 0
"""How many pools of lanes are open in the process, and the threads of torch before the first of them."""


def lane_count(device: torch.device) -> int:
    """How many pieces run beside each other: the threads of a CPU; one where the device is parallel in itself."""
    return _thread_count() if device.type == "cpu" else 1


@contextmanager
def open_lanes(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """A pool with a thread for every lane, each of which computes alone on a CPU.

    When the block ends, also by an exception, what has begun is finished and what waits is dropped.
    """
    global _open, _threads
    with _lock:
        if _open == 0:
            _threads = torch.get_num_threads()
        _open += 1
    alone = _compute_alone if device.type == "cpu" else None
    pool = ThreadPoolExecutor(lane_count(device), thread_name_prefix="lane", initializer=alone)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        # A lane's setting is its own thread's, but also what threads yet to come will take over. So it is set again
        # to what it was before the first pool: one that began beside others saw their setting.
        with _lock:
            _open -= 1
            torch.set_num_threads(_threads)


def run_in_lanes(tasks: Sequence[Callable[[], T]], device: torch.device) -> list[T]:
    """The results of all tasks, in order."""
    with open_lanes(device) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]


def _thread_count() -> int:
    with _lock:
        return _threads if _open else torch.get_num_threads()


def _compute_alone() -> None:
    torch.set_num_threads(1)
