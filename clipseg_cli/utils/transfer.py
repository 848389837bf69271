"""Copies between the host and a device that nobody waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


def upload(arrays: Sequence[NDArray[np.uint8]], device: torch.device) -> list[Tensor]:
    """Bytes of any shapes on a device, all in one copy; on a CPU they are shared and not copied."""
    if device.type == "cpu":
        return [torch.from_numpy(one) for one in arrays]
    sizes = [one.size for one in arrays]
    host = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for part, one in zip(host.split(sizes), arrays, strict=True):
        part.view(one.shape).copy_(torch.from_numpy(one))
    there = host.to(device, non_blocking=True).split(sizes)
    return [part.view(one.shape) for part, one in zip(there, arrays, strict=True)]


class Download:
    """Tensors on their way to the host, all in one copy; on CUDA it runs beside whatever comes next.

    Args:
        tensors: of one device; those of wider types first, so that each begins where its type may.

    Attributes:
        pinned: they arrive in memory that the device reaches by itself.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._like = [(one.dtype, one.shape) for one in tensors]
        self._arrived: torch.cuda.Event | None = None
        device = tensors[0].device
        self.pinned = device.type == "cuda"
        if device.type == "cpu":
            self._host = list(tensors)
            return
        packed = torch.cat([one.contiguous().view(-1).view(torch.uint8) for one in tensors])
        if self.pinned:
            host = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
            host.copy_(packed, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(device))
        else:
            host = packed.to("cpu")
        sizes = [shape.numel() * dtype.itemsize for dtype, shape in self._like]
        both = zip(host.split(sizes), self._like, strict=True)
        self._host = [part.view(dtype).view(shape) for part, (dtype, shape) in both]

    def __call__(self) -> list[Tensor]:
        """The tensors, once they are here; any thread may wait for them."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host
