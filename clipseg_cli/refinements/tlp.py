"""Text-aware Laplacian propagation: scores flow over the image where it has no edges (PEARL, arXiv:2603.21528).

It works on a grid of about 80 cells a side over the image at its own size. Scores are brought to that size and averaged
in cells by one matrix a side, so that no map at full size is made, however large the image.

A map that is everywhere the same stays as it is, and what comes out is about a weighted mean of cosines. So the softmax
scale, the background threshold and the confidence mean what they mean without it.

Reference: PGSmall/PEARL@c26062b.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from clipseg_cli.ops.axes import Axis
from clipseg_cli.ops.logits import layers_of
from clipseg_cli.ops.reduce import layer_tile, stretched
from clipseg_cli.ops.text_laplacian import cell_size, mean_matrix, text_laplacian
from clipseg_cli.types import Refinement, Tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.ops.reduce import Layer
    from clipseg_cli.types import Context, LogitMaps

GRID, STEPS = 80, 25


def spread(
    layers: Sequence[Layer], image: Layer, text_embeds: Tensor, grid: int = GRID, **options: float
) -> Tensor:
    """Scores on the grid of cells, propagated.

    Args:
        layers: cosines of the same words, to be added, and how they are brought to full size.
        image: [3, h, w] normalised, brought to the same size.
        text_embeds: [Q, D] unit vectors of the words.
        grid: cells along each side, about.
        options: see `text_laplacian`.

    Returns:
        [Q, gh, gw].
    """
    cell = cell_size(image.size, grid)

    def pooled(layer: Layer) -> Tensor:
        device = layer.maps.device
        down, across = (
            Axis(mean_matrix(len(axis), pixels, device) @ axis.weights)
            for axis, pixels in zip((layer.down, layer.across), cell, strict=True)
        )
        whole = Tile(0, len(down), 0, len(across))
        return layer_tile(layer._replace(down=down, across=across), whole)

    logits = sum((pooled(layer) for layer in layers[1:]), pooled(layers[0]))
    return text_laplacian(logits, pooled(image), text_embeds, **options)  # type: ignore[arg-type]


def refine(
    maps: LogitMaps,
    context: Context,
    value: str,
    *,
    grid: int = GRID,
    steps: int = STEPS,
    tau: float = 0.5,
    boost: float = 10.0,
    sharpness: float = 5.0,
    smoothness: float = 1.0,
) -> LogitMaps:
    """The maps of an image, on one grid of cells, propagated."""
    del value
    found = spread(
        layers_of(maps, context.size, 1.0),
        stretched(context.image(), context.size),
        context.words.text_embeds,
        grid,
        steps=steps,
        tau=tau,
        boost=boost,
        sharpness=sharpness,
        smoothness=smoothness,
    )
    return dataclasses.replace(maps, maps=(found,), weights=None, centres=None, nearest=False)


REFINEMENT = Refinement(
    refine,
    scope="pixel",
    order=5,
    chosen_by=("propagate", "pearl"),
    ranges={
        "grid": (1, 1000),
        "steps": (1, 1000),
        "tau": (0.001, 1000),
        "boost": (0, 1000),
        "sharpness": (0, 1000),
        "smoothness": (0, 1000),
    },
    summary="scores flow over the image, held where words are sure, stopped by edges",
    paper="arXiv:2603.21528",
    reference="PGSmall/PEARL@c26062b",
)
