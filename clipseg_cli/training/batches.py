"""Batches of random crops, made in threads ahead of the network; the same whoever makes them.

What the n-th crop of a run is depends on the seed and n alone: not on the number of threads or processes, nor on where
a run was interrupted.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from clipseg_cli.errors import ClipsegError, DatasetError, ImageError, RunError, UsageError
from clipseg_cli.ops.augment import augment, mix

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.ops.augment import Crop, CropSpec
    from clipseg_cli.training.samples import TrainingImages
    from clipseg_cli.utils.distributed import Share

BATCHES_AHEAD = 2


class Batch(NamedTuple):
    """Crops of one iteration and rank.

    Attributes:
        images: uint8 [b, 3, S, S].
        given: int32 [b, S, S], labels to learn from.
        proposed: int32 [b, S, S], those of a pseudo-label run at the same place; None without a run.
        human: int32 [b, S, S], 1 where what is proposed is by human hand; None where no label of the run is.
    """

    images: Tensor
    given: Tensor
    proposed: Tensor | None
    human: Tensor | None = None

    def split(self, parts: int, device: torch.device) -> list[Batch]:
        """Equal parts, on the device."""
        chunks = [
            [None] * parts
            if whole is None
            else [part.to(device, non_blocking=True) for part in whole.chunk(parts)]
            for whole in self
        ]
        return [Batch(*part) for part in zip(*chunks, strict=True)]


class Batches:
    """The batches of one rank, iteration by iteration, without end.

    Every epoch is a new permutation of the images. One that cannot be read is replaced by the next that can.

    Args:
        source: the images, with what is given and proposed; read from several threads at once.
        spec: what a crop looks like.
        batch_size: crops in one iteration, over all ranks.
        share: rank and number of ranks.
        seed: of the order and of the crops; not negative.
        start: the first iteration, counted from 0.
        workers: threads that read and cut.
        pinned: batches lie in memory that a GPU reaches by itself, so that nobody waits for a copy.
        by_human: whether the label of an image, by its number, is by human hand; None where none is.

    Attributes:
        failures: name of an image that could not be read -> why, as far as the batches taken.
        padded: crops taken that are larger than their resized image.

    Raises:
        UsageError: the ranks cannot share the batch equally.
        DatasetError: there are no images.
    """

    def __init__(
        self,
        source: TrainingImages,
        spec: CropSpec,
        *,
        batch_size: int,
        share: Share,
        seed: int,
        start: int = 0,
        workers: int,
        by_human: Callable[[int], bool] | None = None,
        pinned: bool = False,
    ) -> None:
        if batch_size < share.count or batch_size % share.count:
            raise UsageError(
                f"a batch of {batch_size} cannot be shared equally by {share.count} processes",
                hint=f"take a batch that is a multiple of {share.count}",
            )
        if not len(source):
            raise DatasetError("there are no images to train on")
        self.source, self.spec, self.seed, self._by_human = source, spec, seed, by_human
        self._pinned = pinned
        self.batch_size, self.per_rank = batch_size, batch_size // share.count
        self.first = share.index * self.per_rank
        self.failures: dict[str, str] = {}
        self.padded = 0
        self._iteration = start
        self._epoch, self._order = -1, np.empty(0, np.int64)
        self._ahead: deque[Future[_Joined]] = deque()
        self._most = BATCHES_AHEAD + workers // self.per_rank
        # Asked here, because a thread that never asked takes over what any other has set.
        self._threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(
            workers, thread_name_prefix="crop", initializer=torch.set_num_threads, initargs=(1,)
        )
        # Of its own, so that whoever waits for crops keeps none from being cut.
        self._joiner = ThreadPoolExecutor(
            1, thread_name_prefix="batch", initializer=torch.set_num_threads, initargs=(1,)
        )

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        """The batch of the next iteration; nothing more once closed.

        Raises:
            RunError: no image can be read.
        """
        if self._pool is None:
            raise StopIteration
        try:
            while len(self._ahead) <= self._most:
                self._ahead.append(self._begin(self._pool))
            joined = self._ahead.popleft().result()
        except BaseException:
            self.close()
            raise
        self.failures |= joined.failures
        self.padded += joined.padded
        return joined.batch

    def close(self) -> None:
        """Stop the threads: what is being cut is finished, the rest dropped."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        pool.shutdown(wait=True, cancel_futures=True)
        self._joiner.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()
        # A worker's setting is its own thread's, but also what threads yet to come will take over.
        torch.set_num_threads(self._threads)

    def _begin(self, pool: ThreadPoolExecutor) -> Future[_Joined]:
        number = self._iteration * self.batch_size + self.first
        self._iteration += 1
        numbers = range(number, number + self.per_rank)
        items = [pool.submit(self._make, n, self._order_of(n)) for n in numbers]
        return self._joiner.submit(self._join, items)

    def _order_of(self, number: int) -> NDArray[np.int64]:
        """The permutation of the epoch to which a crop belongs."""
        epoch = number // len(self.source)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.source))
        return self._order

    def _make(self, number: int, order: NDArray[np.int64]) -> _Item:
        failures: dict[str, str] = {}
        for offset in range(len(order)):
            index = int(order[(number + offset) % len(order)])
            try:
                image, labels = self._read(index)
            except ClipsegError as error:
                failures[self.source.name(index)] = error.message
                continue
            rng = np.random.default_rng([self.seed, number, 1])
            crop = augment(image, labels, rng, self.spec)
            if self.spec.mix and rng.random() < self.spec.mix:
                crop = self._mixed(crop, int(rng.integers(len(order))), rng, failures)
            return _Item(crop, failures)
        name, sentence = next(iter(failures.items()))
        raise RunError(f"none of {len(order)} images can be read; {name}: {sentence}")

    def _mixed(self, crop: Crop, index: int, rng: np.random.Generator, failures: dict[str, str]) -> Crop:
        """With things of another image, if that can be read."""
        try:
            image, labels = self._read(index)
        except ClipsegError as error:
            failures[self.source.name(index)] = error.message
            return crop
        return mix(crop, augment(image, labels, rng, self.spec), rng, self.spec)

    def _read(self, index: int) -> tuple[Tensor, Tensor]:
        """The image uint8 [3, H, W] and its one to three label maps int32 [K, H, W].

        Cropping looks at the first of them, mixing at the last.
        """
        image, given, proposed = self.source(index)
        maps = [given] if proposed is None else [given, proposed]
        if self._by_human is not None:
            maps.insert(1, np.full(given.shape, self._by_human(index), np.int32))
        for labels in maps:
            if labels.shape != image.shape[:2]:
                name = self.source.name(index)
                size, wrong = ("x".join(map(str, s)) for s in (image.shape[:2], labels.shape))
                raise ImageError(f"{name}: labels of {wrong} for an image of {size}", image=name)
        pixels = np.require(image, np.uint8, ["C", "W"])  # torch warns of arrays that it must not write to
        return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(np.stack(maps).astype(np.int32))

    def _join(self, futures: list[Future[_Item]]) -> _Joined:
        items = [future.result() for future in futures]
        failures = {name: why for item in items for name, why in item.failures.items()}
        maps = zip(*(item.crop.labels for item in items), strict=True)  # K times b of [S, S]
        labels = [self._stacked(list(one)) for one in maps]
        images = self._stacked([item.crop.image for item in items])
        human = None if self._by_human is None else labels[1]
        batch = Batch(images, labels[0], labels[-1] if len(labels) > 1 else None, human)
        return _Joined(batch, failures, sum(item.crop.padded for item in items))

    def _stacked(self, parts: list[Tensor]) -> Tensor:
        shape = (len(parts), *parts[0].shape)
        full = torch.empty(shape, dtype=parts[0].dtype, pin_memory=self._pinned)
        return torch.stack(parts, out=full)


class _Item(NamedTuple):
    crop: Crop
    failures: dict[str, str]


class _Joined(NamedTuple):
    batch: Batch
    failures: dict[str, str]
    padded: int
