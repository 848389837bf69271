"""Which part of the work is this process's, when several share it (`torchrun`, or `--shard`)."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from clipseg_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """One of `count` equal parts.

    Attributes:
        index: from 0.
        count: 1 where nothing is shared.
        launched: by torchrun, so that the other parts run at the same time.
    """

    index: int = 0
    count: int = 1
    launched: bool = False

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Every count-th item: dealt like cards, so that no part gets only the hard ones."""
        return items[self.index :: self.count]

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


def process_share(shard: tuple[int, int] = (1, 1)) -> Share:
    """The part of this process: that of `--shard` (index from 1, count), else that of its torchrun rank.

    Raises:
        UsageError: the shard is none of its parts, or both torchrun and --shard divide the work.
    """
    index, count = shard
    if not 1 <= index <= count:
        raise UsageError(f"--shard {index}/{count}: the first number goes from 1 to the second")
    world = _number("WORLD_SIZE", 1)
    if world > 1 and count > 1:
        raise UsageError("torchrun shares out the work already", hint="leave out --shard")
    if world > 1:
        return Share(_number("RANK", 0), world, launched=True)
    return Share(index - 1, count)


@contextmanager
def rendezvous(share: Share, *, cuda: bool = False) -> Iterator[None]:
    """Let the processes of torchrun meet: `wait_for_all` and `sum_over_ranks` work within the block.

    They meet on the CPU (gloo), whatever computes, since only counts are exchanged; with `cuda` also on the
    accelerators (nccl), for the gradients of a training. One that dies ends all of them, by torchrun; one that is
    slow is waited for.
    """
    if not share.launched:
        yield
        return
    import torch.distributed as dist

    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(days=7))
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait_for_all(share: Share) -> None:
    """Until every rank is here; at once where nothing is shared."""
    if share.launched:
        import torch.distributed as dist

        dist.barrier()


def sum_over_ranks(tensor: Tensor, share: Share) -> Tensor:
    """The sum of the ranks' tensors, the same everywhere; exact for integers."""
    if not share.launched:
        return tensor
    import torch.distributed as dist

    total = tensor.cpu().clone()
    dist.all_reduce(total)
    return total.to(tensor.device)


def gather_from_ranks(items: list[T], share: Share) -> list[T]:
    """The items of all ranks, rank by rank."""
    if not share.launched:
        return items
    import torch.distributed as dist

    parts: list[list[T]] = [[] for _ in range(share.count)]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def local_rank() -> int:
    """Number of this process on its machine; 0 without torchrun."""
    return _number("LOCAL_RANK", 0)


def processes_here() -> int:
    """How many processes torchrun began on this machine; 1 without torchrun."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else default
