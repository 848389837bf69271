"""The scores of one picture while they are small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipseg_cli.ops.reduce import Layer, centred_matrix, nearest_matrix, stretched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

Centres = tuple["Sequence[float]", "Sequence[float]"]
"""Where rows and columns of a map stand in the picture, from 0 to 1."""


@dataclass(frozen=True)
class ScoreMaps:
    """Maps of all words that are added at full size: one, or one of each scale.

    Attributes:
        maps: [Q, h, w] each.
        centres: of each map; None stretches it over the whole picture.
        nearest: repeat cells instead of interpolating.
    """

    maps: tuple[Tensor, ...]
    centres: tuple[Centres | None, ...] = (None,)
    nearest: bool = False

    def each(self, change: Callable[[Tensor], Tensor]) -> ScoreMaps:
        """The same with other values."""
        return ScoreMaps(tuple(change(one) for one in self.maps), self.centres, self.nearest)

    def at(self, size: tuple[int, int]) -> list[Layer]:
        """Ready to be brought to (H, W)."""
        return [self._layer(one, centres, size) for one, centres in zip(self.maps, self.centres, strict=True)]

    def _layer(self, one: Tensor, centres: Centres | None, size: tuple[int, int]) -> Layer:
        if centres is not None:
            down, across = (
                centred_matrix([place * side for place in places], side, one.device)
                for places, side in zip(centres, size, strict=True)
            )
            return Layer(one.float(), down, across)
        if self.nearest:
            down, across = (
                nearest_matrix(cells, side, one.device)
                for cells, side in zip(one.shape[1:], size, strict=True)
            )
            return Layer(one.float(), down, across)
        return stretched(one, size)
