"""What lies around a patch, and where it lies: means over its neighbourhood, and smooth functions of row and column.

A street has sky above and road below, a pavement lies beside the road; a patch alone does not show it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

REACHES = (3, 19)
"""Sides of the squares that are averaged over, in patches."""

STRENGTH = 2.0
"""Largest value of the functions of the place, where whitened features have variance 1."""


def mean_around(maps: Tensor, side: int) -> Tensor:
    """The mean over the square of `side` (odd) patches around each: [d, h, w] -> the same; borders are repeated."""
    padded = F.pad(maps[None], (side // 2,) * 4, mode="replicate")[0]
    return _running_mean(_running_mean(padded, side, 1), side, 2)


def _running_mean(x: Tensor, side: int, dim: int) -> Tensor:
    """Means of `side` neighbours along a dimension, which loses `side - 1`; as fast for many as for few."""
    count = x.shape[dim] - side + 1
    sums = x.cumsum(dim)
    first = sums.narrow(dim, side - 1, 1)
    rest = sums.narrow(dim, side, count - 1) - sums.narrow(dim, 0, count - 1)
    return torch.cat([first, rest], dim) / side


def place(like: Tensor) -> Tensor:
    """Where each patch of [d, h, w] lies, the same for an image and its mirror image: [4, h, w] in [-1, 1]."""
    rows = torch.linspace(-1, 1, like.shape[1]).to(like)[:, None].expand(like.shape[1:])
    columns = torch.linspace(-1, 1, like.shape[2]).to(like).expand(like.shape[1:])
    return torch.stack([rows, columns.abs(), (torch.pi * rows).cos(), (torch.pi * rows).sin()])


def with_surroundings(maps: Tensor, near: int, *, placed: bool = True) -> Tensor:
    """Features of patches, and behind them those of what is around.

    Args:
        maps: [d, h, w].
        near: how many of the d, the first, are averaged over each of `REACHES`.
        placed: the maps are of a whole image, so that the place says something.

    Returns:
        [d + len(REACHES) * near + 4, h, w]; without the last 4 where not `placed`.
    """
    found = [maps, *(mean_around(maps[:near], side) for side in REACHES)]
    return torch.cat([*found, STRENGTH * place(maps)] if placed else found)
