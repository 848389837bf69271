"""Parallel work whose results do not depend on how many threads there are.

One matrix product split over two threads rounds differently from the same product on one. So on a CPU we do not
split products: every piece of work runs on one thread, and several pieces run beside each other. The pieces must be
cut in the same way each time; then a run on 64 cores, one that was interrupted and one that was shared out between
processes all agree to the last bit.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch

from clipseg_cli.utils.distributed import processes_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")

BESIDE_A_CPU, BESIDE_A_GPU = 2, 8
"""Threads that cut crops where the CPU computes too, and at most where it has nothing else to do."""

_lock = threading.Lock()
_open = 0
_threads = 0
"""How many pools are open in the process, and the threads of torch before the first of them."""


def pool_size(device: torch.device) -> int:
    """How many pieces run beside each other: the threads of a CPU; one where the device is parallel in itself."""
    if device.type != "cpu":
        return 1
    with _lock:
        return _threads if _open else torch.get_num_threads()


def crop_threads(device: torch.device) -> int:
    """How many threads cut the crops that a device learns from: on a GPU this process's part of the cores."""
    if device.type == "cpu":
        return BESIDE_A_CPU
    own = getattr(os, "sched_getaffinity", None)  # which a container or a scheduler may have narrowed
    cores = len(own(0)) if own else os.cpu_count() or 1
    return max(BESIDE_A_CPU, min(BESIDE_A_GPU, cores // processes_here()))


@contextmanager
def single_thread_pool(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, each of which computes alone on a CPU.

    When the block ends, also by an exception, what has begun is finished and what waits is dropped.
    """
    global _open, _threads
    with _lock:
        if _open == 0:
            _threads = torch.get_num_threads()
        _open += 1
    alone = partial(torch.set_num_threads, 1) if device.type == "cpu" else None
    pool = ThreadPoolExecutor(pool_size(device), "alone", initializer=alone)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        # A thread's setting is its own, but also what threads yet to come will take over. So it is set again to what
        # it was before the first pool: one that began beside others saw their setting.
        with _lock:
            _open -= 1
            torch.set_num_threads(_threads)


def map_single_threaded(function: Callable[[T], R], items: Iterable[T], device: torch.device) -> list[R]:
    """`function` of every item, in order."""
    with single_thread_pool(device) as pool:
        return [future.result() for future in [pool.submit(function, item) for item in items]]
