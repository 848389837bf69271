"""Windows and crops through the network, in batches of one shape; half as many at once where memory runs out."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

import torch

from clipseg_cli.errors import is_out_of_memory
from clipseg_cli.inference.parts import Batch, Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clipseg_cli.inference.parts import Crop, Stack

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Batches:
    """Cuts crops of one shape into batches; several threads may use it at once.

    Args:
        size: crops in one forward pass. Once, when memory runs out, this is halved, and a warning says so.
    """

    def __init__(self, size: int) -> None:
        self.size, self._halved, self._lock = size, False, threading.Lock()

    def __call__(self, crops: Sequence[Crop], read: Callable[[Batch], T]) -> Iterator[T]:
        """What `read` gives for each batch, in order.

        Raises:
            RuntimeError: memory ran out again, or for one crop alone.
        """
        start = 0
        while start < len(crops):
            some = crops[start : start + self.size]
            found = self._read(some, read)
            if found is not None:
                yield found
                start += len(some)

    def _read(self, crops: Sequence[Crop], read: Callable[[Batch], T]) -> T | None:
        """One batch; None where it has to be tried again with fewer crops."""
        try:
            return read(Batch.of(crops))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or not self._fewer_than(len(crops)):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # pieces of the size that failed are of no use for others
        return None

    def _fewer_than(self, count: int) -> bool:
        """Whether fewer crops than these may be tried; the size is halved once, for all threads."""
        with self._lock:
            if not self._halved and count > 1:
                self._halved, self.size = True, -(-count // 2)
                logger.warning(
                    "not enough memory for %d windows at once: going on with %d, as --batch-size %d does",
                    count,
                    self.size,
                    self.size,
                )
            return count > self.size


def encode(
    stacks: Sequence[Stack],
    crops: Sequence[Sequence[Sequence[Crop]]],
    batches: Batches,
    read: Callable[[Batch], Parts],
) -> list[Parts]:
    """What the network says of all crops of each stack; batches are filled in the order of the images.

    Args:
        stacks: images of one size each.
        crops: of each image of each stack; those of one image have one shape.
        batches: how many go through the network at once.
        read: one batch of them.
    """
    of_image = {
        number: own
        for stack, each in zip(stacks, crops, strict=True)
        for number, own in zip(stack.numbers, each, strict=True)
    }
    of_shape: dict[torch.Size, list[int]] = defaultdict(list)
    for number in sorted(of_image):
        of_shape[of_image[number][0].pixels.shape].append(number)
    first: dict[int, int] = {}
    found: dict[int, Parts] = {}
    for numbers in of_shape.values():
        flat: list[Crop] = []
        for number in numbers:
            first[number] = len(flat)
            flat += of_image[number]
        found |= dict.fromkeys(numbers, Parts.joined(list(batches(flat, read))))
    return [
        found[stack.numbers[0]].of_images([first[number] for number in stack.numbers], len(stack.windows))
        for stack in stacks
    ]
