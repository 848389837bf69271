"""What is said of an image, brought to full size and decided: `ops.reduce` for `LogitMaps`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.ops.axes import centred_axis, nearest_axis
from clipseg_cli.ops.reduce import (
    Compose,
    Layer,
    Reduced,
    probability_maps,
    reduce_layers,
    stretched,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import LogitMaps
    from clipseg_cli.types.logits import Centres


def layers_of(maps: LogitMaps, size: tuple[int, int], scale: float) -> list[Layer]:
    """Maps of an image, scaled, ready to be brought to (H, W)."""
    scaled = list(maps.maps)
    if maps.weights is not None:
        scaled = [one * weight for one, weight in zip(scaled, maps.weights, strict=True)]
    if not maps.probabilities:
        scaled = [one * scale for one in scaled]
    centres = maps.centres or (None,) * len(scaled)
    return [_placed(one, place, size, maps.nearest) for one, place in zip(scaled, centres, strict=True)]


def _placed(maps: Tensor, centres: Centres | None, size: tuple[int, int], nearest: bool) -> Layer:
    if centres is not None:
        down, across = (
            centred_axis(tuple(place * side for place in places), side, maps.device)
            for places, side in zip(centres, size, strict=True)
        )
        return Layer(maps.float(), down, across)
    if nearest:
        down, across = (
            nearest_axis(cells, side, maps.device) for cells, side in zip(maps.shape[-2:], size, strict=True)
        )
        return Layer(maps.float(), down, across)
    return stretched(maps, size)


def reduce_logits(maps: LogitMaps, size: tuple[int, int], scale: float, *, totals: bool = False) -> Reduced:
    """The winner of every pixel, by what is said of an image and all that happens to it at full size.

    Args:
        maps: with the refinements at full size.
        size: (H, W) of the result.
        scale: factor on cosines before the softmax.
        totals: maps of single classes will be asked for.
    """
    return reduce_layers(
        layers_of(maps, size, scale),
        probabilities=maps.probabilities,
        refinement=Compose(maps.at_full_size) if maps.at_full_size else None,
        excluded=maps.excluded,
        totals=totals,
    )


def class_probabilities(
    maps: LogitMaps, size: tuple[int, int], scale: float, log_total: Tensor, queries: Sequence[int]
) -> Tensor:
    """Probabilities [n, H, W] of a few words by the decision that gave `log_total`; arguments as `reduce_logits`."""
    return probability_maps(
        layers_of(maps, size, scale),
        log_total,
        queries,
        probabilities=maps.probabilities,
        refinement=Compose(maps.at_full_size) if maps.at_full_size else None,
    )
