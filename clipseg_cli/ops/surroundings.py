"""What lies around a patch, and where it lies: means over its neighbourhood, and smooth functions of row and column.

A street has sky above and road below, a pavement lies beside the road; a patch alone does not show it.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

REACHES = (3, 19)
"""Sides of the squares that are averaged over, in patches."""

KEPT = 16
"""Matrices of means that are kept for grids that come again."""

STRENGTH = 2.0
"""Largest value of the functions of the place, where whitened features have variance 1."""


def mean_around(maps: Tensor, side: int) -> Tensor:
    """The mean over the square of `side` (odd) patches around each: [d, h, w] -> the same; borders are repeated."""
    down, across = (_means(count, side, maps.device) for count in maps.shape[1:])
    return down @ maps @ across.mT


@lru_cache(maxsize=KEPT)
@torch.inference_mode(False)
def _means(count: int, side: int, device: torch.device) -> Tensor:
    """How much each of `count` patches in a row takes of all: float32 [count, count], rows sum to 1."""
    around = torch.arange(count)[:, None] + torch.arange(-(side // 2), side // 2 + 1)
    share = torch.full(around.shape, 1 / side)
    means = torch.zeros(count, count).scatter_add_(1, around.clamp(0, count - 1), share)
    return means.to(device, non_blocking=True)


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
