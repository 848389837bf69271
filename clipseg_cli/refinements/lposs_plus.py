"""LPOSS+: after LPOSS, pixels near each other say the same where they have the same colour (arXiv:2503.19777).

It works on the pixels that the network sees, not on those of the file, and hands out a map of that size for each word.
Scores are divided by what a map of ones becomes, as those of LPOSS are.

Memory: maps of the words at network size, three times those of some words while they are solved for, and at most 512 MB
of weights, which are made again at each step where they would take more.

Reference: vladan-stojnic/LPOSS@e489a74.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.pixel_graph import PixelGraph
from clipseg_cli.ops.reduce import layer_tile, stretched
from clipseg_cli.refinements.lposs import ALPHA, LEAST_MASS, STEPS
from clipseg_cli.types import Refinement, Tile

if TYPE_CHECKING:
    from clipseg_cli.types import Context, LogitMaps


def refine(
    maps: LogitMaps,
    context: Context,
    value: str,
    *,
    tau: float = 0.01,
    reach: int = 6,
    alpha: float = ALPHA,
    steps: int = STEPS,
) -> LogitMaps:
    """The maps of an image at network size, propagated over pixels.

    Args:
        maps: of an image, on one grid.
        context: of the image.
        value: of the option.
        tau: width of exp(-|difference of colour| / tau).
        reach: pixels along each axis to the farthest neighbour; the published r = 13 is 6.
        alpha, steps: as for LPOSS.
    """
    del value
    image = context.colours()
    size = (image.shape[1], image.shape[2])
    mass = torch.ones_like(maps.maps[0][:1]) if maps.mass is None else maps.mass[None]
    layer = stretched(torch.cat([maps.maps[0] * mass, mass]), size)
    start = layer_tile(layer, Tile(0, size[0], 0, size[1]))
    solved = PixelGraph(image, tau=tau, reach=reach).propagate(start, alpha=alpha, steps=steps)
    mass = solved[-1].clamp(min=LEAST_MASS)
    return dataclasses.replace(maps, maps=(solved[:-1] / mass,), mass=mass)


REFINEMENT = Refinement(
    refine,
    scope="pixel",
    order=4,
    chosen_by=("propagate", "lposs+"),
    ranges={"tau": (1e-4, 100), "reach": (1, 32), "alpha": (0, 0.999), "steps": (1, 1000)},
    summary="after LPOSS, pixels near each other and of one colour say the same",
    paper="arXiv:2503.19777",
    reference="vladan-stojnic/LPOSS@e489a74",
)
