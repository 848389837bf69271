"""Batch norm over the crops of all processes, also on the CPU, where torch has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` that trains with the statistics of all ranks, as if they were one with all the crops.

    Where no other process has been met, and in eval mode, it is `BatchNorm2d`.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's own name of it
        """[B, c, h, w] -> [B, c, h, w]; all ranks must call it, with any B, h and w of at least 1."""
        if not self.training or _world_size() == 1:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))  # a half would not do for sums
        mean, var, count = _joined_statistics(x)
        self._track(mean.detach(), var.detach(), count)
        scale, shift = (var + self.eps).rsqrt(), -mean  # [c]
        if self.affine:
            scale = scale * self.weight
        shift = shift * scale
        if self.affine:
            shift = shift + self.bias
        return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)

    def _track(self, mean: Tensor, var: Tensor, count: float) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(var * (count / (count - 1)), rate)


def synchronise(module: nn.Module) -> nn.Module:
    """Let every batch norm in a network train with the statistics of all ranks.

    Names and values of its weights stay as they are, so files fit before and after. On CUDA it is torch's own
    `SyncBatchNorm`, which needs a process group that can reach the GPUs (nccl).

    Args:
        module: already on its device; changed in place.

    Returns:
        The same network.
    """
    weight = next(module.parameters(), None)
    if weight is not None and weight.is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-any-return]
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SyncedBatchNorm2d
    return module


def joins_ranks(norm: nn.Module) -> bool:
    """Whether this batch norm sees more crops than those of its own process."""
    return isinstance(norm, (SyncedBatchNorm2d, nn.SyncBatchNorm)) and _world_size() > 1


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _joined_statistics(x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance [c] over all ranks, and how many values each is over.

    They are joined from the ranks' own means and variances, not from sums of squares, which lose all digits
    where the mean is large (Chan et al., 1979).
    """
    var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    own = torch.cat([mean, var, mean.new_tensor([x.numel() // x.shape[1]])])
    gathered = _GatherFromRanks.apply(own)  # [W, 2c + 1]
    means, variances, counts = gathered.split([x.shape[1], x.shape[1], 1], dim=1)
    counts = counts.detach()
    count = float(counts.sum())
    shares = counts / count  # [W, 1]
    joined = (shares * means).sum(dim=0)
    return joined, (shares * (variances + (means - joined) ** 2)).sum(dim=0), count


class _GatherFromRanks(torch.autograd.Function):
    """[n] on every rank -> [W, n] on all; a gradient flows back to the rank that each row came from."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        rows = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, own)
        return torch.stack(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous()
        dist.all_reduce(total)
        return total[dist.get_rank()]
