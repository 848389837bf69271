"""Features of several depths of a tower, one on top of the other, for those who learn from few labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MOST_DEPTHS = 5
"""Inputs of blocks that are read; with more, those of deep towers hardly differ."""


def spread(depth: int, most: int = MOST_DEPTHS) -> tuple[int, ...]:
    """Numbers of the blocks whose inputs are read: all but the first, or `most` of them at equal distances.

    Args:
        depth: blocks of the tower.
        most: how many at most.
    """
    known = range(1, depth)
    if len(known) <= most:
        return tuple(known)
    step = (len(known) - 1) / (most - 1)
    return tuple(known[round(i * step)] for i in range(most))


def stack_levels(maps: Sequence[Tensor]) -> Tensor:
    """Maps [B, W, h, w] of any grids on the grid of the last: [B, F, h, w].

    At every position each map is brought to mean 0 and variance 1, but the last, which lives in the space of the words,
    to mean square 1 alone, so that its cosines stay what they are.
    """
    last = F.normalize(maps[-1].float(), dim=1) * maps[-1].shape[1] ** 0.5
    return torch.cat([standardised(maps[:-1], maps[-1].shape[2:]), last], dim=1)


def standardised(maps: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
    """Maps [B, W, h, w] of any grids on one grid, each of mean 0 and variance 1 at every position: [B, F, *grid]."""
    found = [
        F.interpolate(one.float(), tuple(grid), mode="bilinear")
        if one.shape[2:] != tuple(grid)
        else one.float()
        for one in maps
    ]
    return torch.cat([_standard(one) for one in found], dim=1)


def _standard(x: Tensor) -> Tensor:
    return F.layer_norm(x.movedim(1, -1), (x.shape[1],)).movedim(-1, 1)


class Packed(NamedTuple):
    """Levels in a byte each.

    Attributes:
        values: int8 [V, F, h, w].
        scale: [V, F] what each feature is multiplied by.
    """

    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, levels: Tensor) -> Packed:
        """Levels [V, F, h, w], each off by 1/254 of the largest of its feature at most."""
        scale = levels.abs().amax(dim=(2, 3)).clamp(min=1e-12) / 127
        return cls((levels / scale[:, :, None, None]).round().to(torch.int8), scale)

    def view(self, number: int, kept: Tensor | None = None) -> Tensor:
        """One of them in float32: [F, h, w], or [F, n] of the patches `kept`, bool [h, w]."""
        values, scale = self.values[number], self.scale[number].float()
        if kept is not None:
            return values[:, kept].float() * scale[:, None]
        return values.float() * scale[:, None, None]


def patch_shares(labels: Tensor, classes: int, grid: tuple[int, int]) -> Tensor:
    """The part of each patch that each class covers.

    Args:
        labels: int [H, W] class ids; below 0 where there is no label.
        classes: C.
        grid: (h, w).

    Returns:
        [C, h, w] in [0, 1].
    """
    found = torch.zeros(classes, *grid)
    for c in labels.unique().tolist():
        if c >= 0:
            found[c] = F.interpolate((labels == c).float()[None, None], grid, mode="area")[0, 0]
    return found


def checkerboard(grid: tuple[int, int], odd: int = 0) -> Tensor:
    """Every other patch of a grid (h, w): bool [h, w]; with `odd` 1 the others."""
    rows, columns = torch.arange(grid[0])[:, None], torch.arange(grid[1])
    return (rows + columns) % 2 == odd
