"""What a network says of an image while it is small, and what may still happen to it at full size."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

Centres = tuple["Sequence[float]", "Sequence[float]"]
"""Where rows and columns of a map stand in the image, from 0 to 1."""


class Tile(NamedTuple):
    """A rectangle of the full-size result, [top, bottom) x [left, right)."""

    top: int
    bottom: int
    left: int
    right: int


class PixelRefinement(Protocol):
    """Changes logits at full size, tile by tile, so that no full-size map of each word is ever held."""

    margin: int
    """Pixels around a tile that it needs to know."""

    def __call__(self, logits: Tensor, tile: Tile, queries: Sequence[int]) -> Tensor:
        """Logits of some words at full size.

        Args:
            logits: [n, rows, columns] of a rectangle of the result; may be overwritten.
            tile: that rectangle, with its margin, which is cut off afterwards.
            queries: [n] which of the Q words these are.

        Returns:
            [n, rows, columns].
        """


@dataclass(frozen=True)
class LogitMaps:
    """Small maps of all words that are added at full size: one, or one of each scale.

    Where images of one size go together, all tensors but `excluded` have a dimension [B] in front.

    Attributes:
        maps: [Q, h, w] each, cosines; probabilities once keys have smoothed them.
        keys: [K, h, w] key features on the grid of the one map, while they are needed.
        memory: [M, h, w] what a memory reads, on the grid of the one map, until it is joined with the words.
        weights: factor of each map; None for 1.
        centres: of each map; None stretches it over the whole image.
        nearest: repeat cells instead of interpolating.
        probabilities: the maps are compared as they are, without scale and softmax.
        at_full_size: what happens to them there, in order.
        mass: [h, w] how much each cell of the one map counts where maps of windows are averaged; None: all the same.
        excluded: bool [Q], words that may not win, though they take part in the softmax.
    """

    maps: tuple[Tensor, ...]
    keys: Tensor | None = None
    memory: Tensor | None = None
    weights: tuple[float, ...] | None = None
    centres: tuple[Centres | None, ...] | None = None
    nearest: bool = False
    probabilities: bool = False
    at_full_size: tuple[PixelRefinement, ...] = ()
    mass: Tensor | None = None
    excluded: Tensor | None = None

    def each(self, function: Callable[[Tensor], Tensor]) -> LogitMaps:
        """The same with other values."""
        return dataclasses.replace(self, maps=tuple(function(one) for one in self.maps))

    def of_image(self, number: int) -> LogitMaps:
        """Those of one of several images that go together; what happens at full size belongs to single images."""

        def row(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[number]

        return dataclasses.replace(
            self.each(lambda one: one[number]),
            keys=row(self.keys),
            memory=row(self.memory),
            mass=row(self.mass),
        )

    def then(self, refinement: PixelRefinement) -> LogitMaps:
        """The same with one more change at full size."""
        return dataclasses.replace(self, at_full_size=(*self.at_full_size, refinement))
