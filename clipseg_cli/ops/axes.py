"""Resizing along one side of an image as a matrix, made once for sizes that come again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

KEPT = 64
"""Matrices that are kept for sizes that come again."""


@dataclass(frozen=True, eq=False)
class Axis:
    """How cells along one side are brought to full size.

    Attributes:
        weights: [target, source].
        spans: of each row the first source cell that counts, and one past the last, both ascending; they are on the
            host, so that nobody waits for them. None: all of them may count.
    """

    weights: Tensor
    spans: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def of(cls, weights: Tensor, device: torch.device) -> Axis:
        """Weights that were made on the host, moved to the device."""
        used = weights.numpy() != 0
        first, behind = used.argmax(axis=1), used.shape[1] - used[:, ::-1].argmax(axis=1)
        spans = tuple(zip(first.tolist(), behind.tolist(), strict=True))
        return cls(weights.to(device, non_blocking=True), spans)

    def __len__(self) -> int:
        return len(self.weights)

    @cached_property
    def _turned(self) -> Tensor:
        return self.weights.T

    def part(self, start: int, end: int) -> tuple[Tensor, int, int]:
        """Weights [source, target] of the targets [start, end) and the sources [first, behind), and these two."""
        first, behind = 0, self.weights.shape[1]
        if self.spans is not None:
            first, behind = self.spans[start][0], self.spans[end - 1][1]
        return cells(cells(self._turned, 1, start, end), 0, first, behind), first, behind


def cells(tensor: Tensor, dim: int, first: int, behind: int) -> Tensor:
    """A range of a tensor along one dimension; the tensor itself where that is all of it."""
    whole = (first, behind) == (0, tensor.shape[dim])
    return tensor if whole else tensor.narrow(dim, first, behind - first)


@lru_cache(maxsize=KEPT)
@torch.inference_mode(False)
def bilinear_axis(source: int, target: int, device: torch.device) -> Axis:
    """A bilinear resize along one side (align_corners=False, no antialias)."""
    position = (torch.arange(target, dtype=torch.float32) + 0.5) * (source / target) - 0.5
    return Axis.of(_between(position.clamp(min=0), source), device)


@lru_cache(maxsize=KEPT)
@torch.inference_mode(False)
def centred_axis(centres: tuple[float, ...], target: int, device: torch.device) -> Axis:
    """Linear interpolation between cells that stand at given places along one side.

    Args:
        centres: ascending, in cells of the result, 0.5 being the middle of the first.
        target: cells of the result; those before the first centre and behind the last repeat it.
        device: of the result.
    """
    place = torch.tensor(centres, dtype=torch.float32)
    wanted = torch.arange(target, dtype=torch.float32) + 0.5
    low = (torch.searchsorted(place, wanted, right=True) - 1).clamp(0, max(0, len(place) - 2))
    high = (low + 1).clamp(max=len(place) - 1)
    gap = (place[high] - place[low]).clamp(min=1e-6)
    return Axis.of(_between(low + ((wanted - place[low]) / gap).clamp(0, 1), len(place)), device)


@lru_cache(maxsize=KEPT)
@torch.inference_mode(False)
def nearest_axis(source: int, target: int, device: torch.device) -> Axis:
    """A nearest-neighbour resize along one side, as by `F.interpolate(mode="nearest")`."""
    index = (torch.arange(target) * (source / target)).floor().long().clamp(max=source - 1)
    return Axis.of(F.one_hot(index, source).float(), device)


def _between(position: Tensor, source: int) -> Tensor:
    """Weights of the two source cells around each position, counted in source cells from the middle of the first."""
    low = position.floor().long().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    weight = position - low
    matrix = torch.zeros(len(position), source)
    rows = torch.arange(len(position))
    matrix[rows, low] += 1 - weight
    matrix[rows, high] += weight
    return matrix
