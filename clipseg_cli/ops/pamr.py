"""Pixel-adaptive mixing: scores flow between neighbours that look alike (PAMR, arXiv:2005.08104).

Reference: sinahmr/NACLIP@0cac3a6, pamr.py, after visinf/1-stage-wseg.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

PAMR_DILATIONS = (8, 16)
"""As NACLIP has them; its own number of steps is 10."""

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
        apart = _neighbours(channel, dilations)[0].sub_(channel)  # [8n, H, W]
        # Of the neighbours and as many centres as dilations, unbiased; seen from the centre these are zeros, so that
        # the difference of the two squares loses no digit.
        count = 9 * len(dilations)
        squares = apart.square().sum(dim=0)
        spread = (squares - apart.sum(dim=0).square_() / count).clamp_(min=0).div_(count - 1).sqrt_()
        unlike += apart.abs_().div_(1e-8 + contrast * spread)
    return unlike.div_(-len(image)).softmax(dim=0)


def pamr(maps: Tensor, affinity: Tensor, dilations: Sequence[int], steps: int) -> Tensor:
    """Let every score be the weighted mean of its neighbours', so many times.

    What a pixel becomes depends on pixels up to `steps * max(dilations)` away, and on nothing behind them: a tile
    with such a margin gives what the whole image gives.

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
