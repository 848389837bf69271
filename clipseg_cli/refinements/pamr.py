"""Pixel-adaptive refinement: scores flow between neighbours that look alike (PAMR, arXiv:2005.08104).

Reference: sinahmr/NACLIP@0cac3a6, pamr.py, after visinf/1-stage-wseg.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.ops.reduce import layer_tile, stretched
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from clipseg_cli.ops.reduce import Layer
    from clipseg_cli.types import Context, LogitMaps, Tile

PAMR_DILATIONS = (8, 16)
"""As NACLIP has them; its own number of steps is 10."""

WORDS_AT_ONCE = 8

CONTRAST = 0.1
"""Share of the local standard deviation by which two pixels count as different."""


def pamr_affinity(image: Tensor, dilations: Sequence[int], contrast: float = CONTRAST) -> Tensor:
    """How much each pixel takes from each of its neighbours.

    Args:
        image: [3, H, W] normalised.
        dilations: distances in pixels at which the eight neighbours are taken.
        contrast: share of the local standard deviation by which two pixels count as different.

    Returns:
        [8 * len(dilations), H, W]; sums to 1 over the neighbours.
    """
    unlike = image.new_zeros(8 * len(dilations), *image.shape[1:])
    for channel in image.split(1):  # [1, H, W]; one after the other, since the neighbours take room
        around = _neighbours(channel, dilations)[0]  # [8n, H, W]
        centres = channel.expand(len(dilations), -1, -1)
        spread = torch.cat([around, centres]).std(dim=0)  # unbiased, [H, W]
        unlike += around.sub_(channel).abs_().div_(1e-8 + contrast * spread)
    return unlike.div_(-len(image)).softmax(dim=0)


def pamr(maps: Tensor, affinity: Tensor, dilations: Sequence[int], steps: int) -> Tensor:
    """Let every score be the weighted mean of its neighbours', so many times.

    What a pixel becomes depends on pixels up to `steps * max(dilations)` away, and on nothing behind them: a tile
    with such a margin gives what the whole picture gives.

    Args:
        maps: [Q, H, W] scores.
        affinity: [8 * len(dilations), H, W] of `pamr_affinity`.
        dilations: as for the affinity.
        steps: how many times.

    Returns:
        [Q, H, W].
    """
    for _ in range(steps):
        mixed = torch.zeros_like(maps)
        for weight, shifted in zip(affinity, _shifts(maps, dilations), strict=True):
            mixed.addcmul_(weight, shifted)
        maps = mixed
    return maps


class PixelAdaptive:
    """`pamr` of full-size logits, tile by tile.

    Args:
        image: what the pixels look like, [3, h, w] normalised, brought to the size of the result.
        dilations, steps: see `pamr`.
        contrast: see `pamr_affinity`.
    """

    def __init__(
        self, image: Layer, dilations: Sequence[int], steps: int, contrast: float = CONTRAST
    ) -> None:
        self.image, self.dilations, self.steps, self.contrast = image, tuple(dilations), steps, contrast
        self.margin = steps * max(dilations)

    def __call__(self, logits: Tensor, tile: Tile, queries: Sequence[int]) -> Tensor:
        """[rows, columns, n] -> the same, whichever words these are."""
        pixels = layer_tile(self.image, tile).permute(2, 0, 1)  # [3, rows, columns]
        affinity = pamr_affinity(pixels, self.dilations, self.contrast)
        # Words do not meet, and each needs room for its copies.
        for start in range(0, len(queries), WORDS_AT_ONCE):
            some = slice(start, start + WORDS_AT_ONCE)
            maps = logits[..., some].permute(2, 0, 1).contiguous()
            logits[..., some] = pamr(maps, affinity, self.dilations, self.steps).permute(1, 2, 0)
        return logits


def _neighbours(maps: Tensor, dilations: Sequence[int]) -> Tensor:
    """[K, H, W] -> [K, 8n, H, W], dilation by dilation."""
    return torch.stack(list(_shifts(maps, dilations)), dim=1)


def _shifts(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """The maps as each of the eight neighbours sees them, borders repeated."""
    height, width = maps.shape[1:]
    for d in dilations:
        padded = F.pad(maps[None], (d, d, d, d), mode="replicate")[0]
        for row in range(3):
            for column in range(3):
                if (row, column) != (1, 1):
                    yield padded[:, row * d : row * d + height, column * d : column * d + width]


def refine(
    maps: LogitMaps,
    context: Context,
    value: int,
    *,
    dilations: tuple[int, ...] = PAMR_DILATIONS,
    contrast: float = CONTRAST,
) -> LogitMaps:
    """The maps with `value` steps of `pamr` at full size."""
    image = stretched(context.image(), context.size)
    return maps.then(PixelAdaptive(image, dilations, value, contrast))


REFINEMENT = Refinement(
    refine,
    scope="pixel",
    order=10,
    ranges={"dilations": (1, 256), "contrast": (1e-3, 100)},
    summary="scores flow between neighbouring pixels that look alike",
    paper="arXiv:2005.08104",
    reference="sinahmr/NACLIP@0cac3a6",
)
