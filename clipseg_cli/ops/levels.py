"""Features of several depths of a tower, concatenated, for classifiers that learn from few labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHORTEST = 1e-12
"""Length of a feature below which nothing is divided by it."""

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


@dataclass(frozen=True)
class Depths:
    """Maps of several depths, read as features on the grid of the last (`types.Levels`).

    At every position each map is brought to mean 0 and variance 1, but the last, which lives in the space of the words,
    to mean square 1 alone, so that its cosines stay what they are. That is done on the coarser of a map's own grid and
    the last's. Maps stay as they came: a few directions of them cost a third of what all features of a large image do.

    Attributes:
        maps: [B, W, h, w] of any grids and types.
    """

    maps: tuple[Tensor, ...]

    def stacked(self) -> Tensor:
        """[B, F, h, w], float32."""
        inner = [_normed(one.float()).movedim(-1, 1) for one in self._inner()]
        return torch.cat([*(_resized(one, self._grid) for one in inner), self.last()], dim=1)

    def projected(self, weight: Tensor) -> Tensor:
        """[F, d] -> [B, d, h, w], float32; the product is taken in the type of the maps."""
        *inner, last = weight.split([one.shape[1] for one in self.maps])
        fine, coarse = [(self._said(), last)], list[Tensor]()
        for one, part in zip(self._inner(), inner, strict=True):
            if one.shape[1:-1] == self._grid:
                fine.append((_normed(one), part))
            else:
                # Its projection is resized, which has fewer channels.
                sums = (_normed(one) @ part.to(one.dtype)).float().movedim(-1, 1)
                coarse.append(_resized(sums, self._grid))
        # One product of all is faster than the sum of one of each.
        rows, columns = torch.cat([one for one, _ in fine], dim=-1), torch.cat([part for _, part in fine])
        return sum(coarse, (rows @ columns.to(rows.dtype)).float().movedim(-1, 1))

    def last(self) -> Tensor:
        """[B, D, h, w], float32."""
        one = self.maps[-1]
        found: Tensor = F.normalize(one.float(), dim=1) * one.shape[1] ** 0.5
        return found

    def above(self, maps: Sequence[Tensor]) -> Depths:
        """These behind others."""
        return Depths((*maps, *self.maps))

    def of(self, rows: slice) -> Depths:
        """Those of some images of the batch."""
        return Depths(tuple(one[rows] for one in self.maps))

    @property
    def _grid(self) -> tuple[int, int]:
        return self.maps[-1].shape[2], self.maps[-1].shape[3]

    def _said(self) -> Tensor:
        """The last map with mean square 1, in its own type: [B, h, w, D]."""
        said = self.maps[-1].movedim(1, -1)
        length = torch.linalg.vector_norm(said, dim=-1, keepdim=True, dtype=torch.float32).clamp(min=SHORTEST)
        scaled: Tensor = said * (said.shape[-1] ** 0.5 / length).to(said.dtype)
        return scaled

    def _inner(self) -> Iterator[Tensor]:
        """All maps but the last, those on finer grids brought to its own: [B, h', w', W]."""
        size = self._grid[0] * self._grid[1]
        for one in self.maps[:-1]:
            finer = one.shape[2] * one.shape[3] > size
            yield (_resized(one, self._grid) if finer else one).movedim(1, -1)


def _normed(rows: Tensor) -> Tensor:
    normed: Tensor = F.layer_norm(rows, rows.shape[-1:])
    return normed


def _resized(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, c, h', w'] -> [B, c, h, w]."""
    if maps.shape[2:] == grid:
        return maps
    resized: Tensor = F.interpolate(maps, grid, mode="bilinear")
    return resized


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
