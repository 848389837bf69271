"""One vector for each region of an image, from a map of features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

PIXELS = 1 << 18
"""That are brought to full size at once: for a thousand features, a gigabyte."""


def region_means(features: Tensor, ids: Tensor, *, unit: bool, none: int | None = 0) -> tuple[Tensor, Tensor]:
    """Mean feature of each region, over its pixels.

    Args:
        features: [D, h, w]; bilinear at the pixels of the regions.
        ids: whole numbers [H, W].
        unit: each pixel counts with length 1; else with the length of its feature.
        none: this id is no region; None leaves none out.

    Returns:
        The ids [R], ascending, and the means [R, D], of any length.

    Source: zdk258/CorrCLIP@103bc18.
    """
    height, width = ids.shape
    found, places = ids.unique(return_inverse=True)
    sums = features.new_zeros((len(found), len(features)), dtype=torch.float32)
    x = _centres(width, features).expand(1, 1, width)
    rows = max(1, PIXELS // width)
    y = _centres(height, features)
    for top in range(0, height, rows):
        part = y[top : top + rows]
        grid = torch.stack([x.expand(1, len(part), width), part.view(1, -1, 1).expand(1, -1, width)], dim=-1)
        # As interpolate does it, for some rows alone.
        pixels = F.grid_sample(features[None].float(), grid, padding_mode="border", align_corners=False)[0]
        pixels = F.normalize(pixels, dim=0) if unit else pixels
        sums.index_add_(0, places[top : top + rows].flatten(), pixels.flatten(1).mT)
    counts = torch.bincount(places.flatten(), minlength=len(found))
    means = sums / counts[:, None]
    kept = torch.ones_like(found, dtype=torch.bool) if none is None else found != none
    return found[kept], means[kept]


def _centres(count: int, like: Tensor) -> Tensor:
    """Centres of `count` pixels, from -1 to 1."""
    return (2 * torch.arange(count, device=like.device, dtype=torch.float32) + 1) / count - 1


def paint(scores: Tensor, found: Tensor, ids: Tensor) -> Tensor:
    """The scores [R, Q] of regions `found` [R], ascending, at all pixels of an id map [H, W]: [Q, H, W].

    Every id of the map is among them.
    """
    return scores[torch.searchsorted(found, ids.contiguous())].movedim(-1, 0)
