"""The loop around the model, for every command that labels images: read ahead, label in batches, write beside."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Barrier
from typing import TYPE_CHECKING, Generic, TypeVar

from clipseg_cli.errors import ClipsegError, DiskFullError
from clipseg_cli.inference.prepare import Prepared
from clipseg_cli.utils.threads import pool_size, single_thread_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.types import Segmentation

T = TypeVar("T")  # what is to be labelled
R = TypeVar("R")  # what comes out for it

IMAGES_AHEAD_BYTES = 256 << 20
"""Decoded images that may wait for the model; at least a few do, however large."""

GROUPS_BYTES = 1 << 30
"""Images and label maps of all groups that are read, labelled or written at once; at least one group, however large."""

RESULTS_BYTES = 512 << 20
"""Images and label maps that may wait to be written; at least one, however large."""


@dataclass(eq=False)
class Stream(Generic[T, R]):
    """Items in, results out, in order; reading and writing run in threads beside the model.

    Attributes:
        predictor: the model.
        config: with the windows in one forward pass, and the threads that read; as many write.
        read: an item to an image ready for the model, or straight to its result (nothing to do).
        finish: what is done with a label map, in a writing thread.
        failed: the result of an item that cannot be read or finished; a full disk ends everything instead.
        class_scores: results hand out maps of single classes; None: as the predictor was made.
    """

    predictor: Predictor
    config: InferenceConfig
    read: Callable[[T], Prepared | R]
    finish: Callable[[T, Segmentation], R]
    failed: Callable[[T, ClipsegError], R]
    class_scores: bool | None = None

    def __post_init__(self) -> None:
        self.batch_size, self.workers = self.config.batch_size, self.config.workers

    def _read(self, item: T) -> Prepared | R:
        try:
            return self.read(item)
        except ClipsegError as error:
            return self._failed(item, error)

    def _finish(self, item: T, wait: Callable[[], Segmentation]) -> R:
        try:
            return self.finish(item, wait())
        except ClipsegError as error:
            return self._failed(item, error)

    def _failed(self, item: T, error: ClipsegError) -> R:
        if isinstance(error, DiskFullError):
            raise error  # every later file would fail in the same way
        return self.failed(item, error)

    def batched(self, items: Iterable[T]) -> Generator[R, None, None]:
        """Results as soon as may be: whatever has been read when a batch is full goes through together.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the files being written are finished, as after close().
        """
        with ExitStack() as stack:
            readers, writers = self._pools(stack)
            pending: deque[tuple[Future[R], int]] = deque()
            for chunk in self._gather(iter(items), readers):
                segmentations = self._launch(chunk)
                for item, image in chunk:
                    if isinstance(image, Prepared):
                        future = writers.submit(self._finish, item, next(segmentations))
                        pending.append((future, _bytes(image)))
                    else:
                        pending.append((_done(image), 0))
                    while len(pending) > 1 and sum(size for _, size in pending) > RESULTS_BYTES:
                        yield pending.popleft()[0].result()
                # A bounded queue, since images wait in memory: this batch is written while the next computes.
                most = max(len(chunk), 2 * self.workers)
                while len(pending) > most or (pending and pending[0][0].done()):
                    yield pending.popleft()[0].result()
            while pending:
                yield pending.popleft()[0].result()

    def reproducible(self, groups: Iterable[Sequence[T]]) -> Generator[R, None, None]:
        """Results that depend on nothing but the group an item is in: not on threads, time or other groups.

        On a CPU each group runs on one thread and several beside each other (see `utils.threads`).

        Raises:
            KeyboardInterrupt: as `batched`.
        """
        device = self.predictor.device
        threads = pool_size(device)
        waiting, more = iter(groups), True
        size: int | None = None  # of a group; the first is read alone
        with ExitStack() as stack:
            readers, writers = self._pools(stack)
            pool = stack.enter_context(single_thread_pool(device))
            reading: deque[list[tuple[T, Future[Prepared | R]]]] = deque()
            running: deque[Future[list[Future[R]]]] = deque()
            while True:
                while more and len(reading) <= threads and _fits(len(reading) + len(running), size):
                    items = next(waiting, None)
                    more = items is not None
                    if items is not None:
                        reading.append([(item, readers.submit(self._read, item)) for item in items])
                if reading and len(running) <= threads:
                    group = [(item, future.result()) for item, future in reading.popleft()]
                    size = sum(_bytes(p) for _, p in group if isinstance(p, Prepared))
                    running.append(pool.submit(self._label_group, group, writers))
                elif not running:
                    return
                ahead = reading or (more and _fits(len(running), size))
                while running and (running[0].done() or len(running) > threads or not ahead):
                    yield from (future.result() for future in running.popleft().result())

    def fastest(self, items: Sequence[T]) -> Generator[R, None, None]:
        """Results in whichever of the two ways keeps this device busier.

        Raises:
            KeyboardInterrupt: as `batched`.
        """
        threads = pool_size(self.predictor.device)
        if not 1 < threads <= len(items):
            return self.batched(items)
        # Images beside each other keep the cores of a CPU busier than the parts of one image do.
        size = min(self.batch_size, max(1, len(items) // (2 * threads)), 8)
        return self.reproducible([items[i : i + size] for i in range(0, len(items), size)])

    def _pools(self, stack: ExitStack) -> tuple[ThreadPoolExecutor, ThreadPoolExecutor]:
        """Readers and writers; at the end what is being written is finished, and what waits is dropped."""
        writers = ThreadPoolExecutor(self.workers, thread_name_prefix="write")
        stack.callback(writers.shutdown, wait=True, cancel_futures=True)
        _start(writers, self.workers)
        readers = ThreadPoolExecutor(self.workers, thread_name_prefix="read")
        stack.callback(readers.shutdown, wait=False, cancel_futures=True)
        _start(readers, self.workers)
        return readers, writers

    def _launch(self, items: Sequence[tuple[T, Prepared | R]]) -> Iterator[Callable[[], Segmentation]]:
        """Label maps on their way; the threads that write wait for them, so that the model can go on."""
        prepared = [image for _, image in items if isinstance(image, Prepared)]
        return self.predictor.launch(prepared, class_scores=self.class_scores)

    def _label_group(
        self, group: Sequence[tuple[T, Prepared | R]], writers: ThreadPoolExecutor
    ) -> list[Future[R]]:
        segmentations = self._launch(group)
        results: list[Future[R]] = []
        for item, image in group:
            if not isinstance(image, Prepared):
                results.append(_done(image))
                continue
            results.append(writers.submit(self._finish, item, next(segmentations)))
            if len(results) > 2 * self.workers:  # label maps wait in memory
                results[-2 * self.workers].exception()
        return results

    def _gather(
        self, items: Iterator[T], readers: ThreadPoolExecutor
    ) -> Iterator[list[tuple[T, Prepared | R]]]:
        """Images read ahead, gathered until their windows fill a batch."""
        ahead: deque[tuple[T, Future[Prepared | R]]] = deque()
        chunk: list[tuple[T, Prepared | R]] = []
        windows = held = 0
        least, depth = 2 * self.workers, 1  # the first image is read alone: it says how large they are
        exhausted = False
        while True:
            while len(ahead) < depth and not exhausted:
                for item in items:
                    ahead.append((item, readers.submit(self._read, item)))
                    break
                else:
                    exhausted = True
            if not ahead:
                break
            item, future = ahead.popleft()
            prepared = future.result()
            chunk.append((item, prepared))
            if isinstance(prepared, Prepared):
                windows += len(prepared.windows)
                held += prepared.image.pixels.nbytes
                # The next batch is read while this one computes: as many images as it will need, unless
                # they are so large that waiting for a full batch would fill the memory.
                wanted = -(-self.batch_size // len(prepared.windows))
                depth = max(1, min(max(least, wanted), IMAGES_AHEAD_BYTES // prepared.image.pixels.nbytes))
            if windows >= self.batch_size or windows == 0 or held >= IMAGES_AHEAD_BYTES:
                yield chunk
                chunk, windows, held = [], 0, 0
        if chunk:
            yield chunk


def _start(pool: ThreadPoolExecutor, workers: int) -> None:
    """Have all threads of a pool running before there is work.

    A pool starts a thread with the task that needs it, and Ctrl-C in the middle of that leaves the thread at work and
    unknown to the pool, which does not wait for it at the end.
    """
    together = Barrier(workers)
    for waiting in [pool.submit(together.wait) for _ in range(workers)]:
        waiting.result()


def _fits(groups: int, size: int | None) -> bool:
    """Whether one more group of about so many bytes may be read beside so many others; None: nobody knows yet."""
    return groups == 0 or (size is not None and (groups + 1) * size <= GROUPS_BYTES)


def _bytes(image: Prepared) -> int:
    """Memory of an image and its label map: its pixels, a label of one byte and a float32 score for each."""
    return image.image.pixels.nbytes + 5 * image.size[0] * image.size[1]


def _done(result: R) -> Future[R]:
    future: Future[R] = Future()
    future.set_result(result)
    return future
