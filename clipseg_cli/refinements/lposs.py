"""LPOSS: patches that look alike say the same (label propagation over patches, arXiv:2503.19777).

The patches of all windows of an image are one graph; the same place in two windows is two patches without a distance.
What looks alike is said by the network of `--guide` (its values, as published with DINO), or, without one, by the
values of the tower's own last block. Cosines of those are all large, so that they are sharpened more: `gamma` is 3 with
a guide and 10 without. With the bundled model, on the 60 training images of samples/emoji-voc, that gives 71.5 mIoU
instead of 69.0, and the output of the block before gives the same; queries, keys, the block's own output and embeddings
did worse at the same numbers, and so did less sharpening (gamma 3), fewer neighbours (100) and centred features.

Published scores grow with the number of links: they reach 11, and hundreds over pixels. Here they are divided by what a
map of ones becomes under the same propagation, so that a map that is everywhere the same stays as it is (up to what ten
steps leave) and all others are weighted means of cosines. The order of words in a patch does not change by that, and
the softmax scale, the background threshold and the confidence mean what they mean without it. Where windows are
averaged, the divisor is what they count (`LogitMaps.mass`), which gives the published mean of undivided scores.

A guide with another grid is brought to the grid of the scores. Words of one class compete at full size, as they always
do here; the published code takes the best word of the background patch by patch.

Memory: the similarities of some rows at a time, and 16 bytes for each patch and neighbour, at most 1 GB, whatever the
size of the file: the graph has as many patches as the network sees.

Reference: vladan-stojnic/LPOSS@e489a74.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ShapeError
from clipseg_cli.ops.propagation import nearest_graph, patch_places, propagate
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import Context, LogitMaps, WindowBatch, Words

GUIDED_GAMMA, OWN_GAMMA = 3.0, 10.0
ALPHA, STEPS = 0.95, 10

LEAST_MASS = 1e-3
"""Ten steps do not reach the solution, which is at least 1."""


def observe(windows: WindowBatch, words: Words) -> Tensor:
    """What the patches of each window look like: [B, C, h, w] unit vectors on the grid of the scores."""
    del words
    seen = windows.dense.values if windows.dense.guide is None else windows.dense.guide
    if seen is None:
        raise ShapeError("LPOSS needs values or a guide")
    grid = windows.logits.shape[2:]
    if seen.shape[2:] != grid:
        seen = F.interpolate(seen.float(), tuple(grid), mode="bilinear", align_corners=False)
    return F.normalize(seen.float(), dim=1)


def spread(
    maps: Sequence[LogitMaps],
    context: Context,
    value: str,
    *,
    neighbours: int = 400,
    gamma: float | None = None,
    sigma: float = 0.01,
    power: float = 1.0,
    alpha: float = ALPHA,
    steps: int = STEPS,
) -> list[LogitMaps]:
    """Maps of all windows of an image, propagated as one; hyper-parameters as `nearest_graph` and `propagate` say.

    Args:
        maps: of each window, on one grid.
        context: of the image, with what `observe` noted.
        value: of the option.
        neighbours, gamma, sigma, power: of the graph; a gamma of None is 3 with a guide, 10 without.
        alpha, steps: of the propagation.
    """
    del value
    seen = context.observed["lposs"]  # [P, C, h, w]
    grid = (seen.shape[2], seen.shape[3])
    graph = nearest_graph(
        seen.movedim(1, -1).flatten(0, 2),
        patch_places(context.windows, grid).to(seen.device),
        neighbours=neighbours,
        gamma=gamma if gamma is not None else GUIDED_GAMMA if context.guided else OWN_GAMMA,
        sigma=sigma,
        power=power,
    )
    words = torch.cat([one.maps[0].flatten(1) for one in maps], dim=1)  # [Q, N]
    ones = torch.ones_like(words[:1])
    solved = propagate(graph, torch.cat([words, ones]).T, alpha=alpha, steps=steps).T
    mass = solved[-1:].clamp(min=LEAST_MASS)
    parts = (solved[:-1] / mass).unflatten(1, (len(maps), *grid)).unbind(dim=1)  # P of [Q, h, w]
    masses = mass[0].unflatten(0, (len(maps), *grid))
    return [
        dataclasses.replace(one, maps=(part,), mass=own)
        for one, part, own in zip(maps, parts, masses, strict=True)
    ]


REFINEMENT = Refinement(
    None,
    scope="graph",
    spread=spread,
    observe=observe,
    chosen_by=("propagate", "lposs", "lposs+"),
    needs=("values",),
    ranges={
        "neighbours": (1, 100_000),
        "gamma": (0, 1000),
        "sigma": (0, 1000),
        "power": (0, 10),
        "alpha": (0, 0.999),
        "steps": (1, 1000),
    },
    summary="patches of the whole image that look alike say the same",
    paper="arXiv:2503.19777",
    reference="vladan-stojnic/LPOSS@e489a74",
)
