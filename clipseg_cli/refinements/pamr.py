"""Pixel-adaptive refinement: scores flow between neighbours that look alike (PAMR, arXiv:2005.08104).

Reference: sinahmr/NACLIP@0cac3a6, pamr.py, after visinf/1-stage-wseg.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.ops.pamr import CONTRAST, PAMR_DILATIONS, pamr, pamr_affinity
from clipseg_cli.ops.reduce import layer_tile, stretched
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.ops.reduce import Layer
    from clipseg_cli.types import Context, LogitMaps, Tile

WORDS_AT_ONCE = 8


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
        """[n, rows, columns] -> the same, whichever words these are."""
        affinity = pamr_affinity(layer_tile(self.image, tile), self.dilations, self.contrast)
        # Words do not meet, and each needs room for its copies.
        for start in range(0, len(queries), WORDS_AT_ONCE):
            some = slice(start, start + WORDS_AT_ONCE)
            logits[some] = pamr(logits[some], affinity, self.dilations, self.steps)
        return logits


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
