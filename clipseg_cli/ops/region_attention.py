"""Attention inside regions (CorrCLIP, arXiv:2411.10086): which regions are one, and who may attend to whom.

Positions of a grid are counted row by row: n = h * w of them. A region number of 0 is "unsegmented".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def merge_alike(unit: Tensor, regions: Tensor, distance: float = 0.2) -> Tensor:
    """Regions whose mean features are alike become one; chains of alike ones too.

    Args:
        unit: [n, C] features of unit length.
        regions: [n] whole numbers from 0; those of number 0 stay as they are.
        distance: below which two regions are alike: the largest product of two means, less theirs.

    Returns:
        [n]; a region takes the smallest number of those that it is one with. With two numbers or fewer, as they were.

    Source: zdk258/CorrCLIP@103bc18: density clustering with one sample at least, which gives connected components.
    """
    numbers, place = regions.unique(return_inverse=True)
    if len(numbers) <= 2:
        return regions
    sums = unit.new_zeros(len(numbers), unit.shape[1]).index_add_(0, place, unit)
    means = torch.nn.functional.normalize(sums, dim=1)  # [R, C]
    kept = numbers != 0
    products = means[kept] @ means[kept].mT
    linked = products.max() - products <= distance
    linked.fill_diagonal_(True)
    own = torch.arange(len(linked), device=unit.device)
    while True:  # each takes the least number in reach, until nothing changes
        least = torch.where(linked, own, len(own)).amin(dim=1)
        if torch.equal(least, own):
            break
        own = least
    merged = numbers.clone()
    merged[kept] = numbers[kept][own]
    found: Tensor = merged[place]
    return found


def scoped_attention(unit: Tensor, regions: Tensor, tau: float = 4.0) -> Tensor:
    """Positions attend to their own region; unsegmented ones to, and are attended by, whatever is alike enough.

    Args:
        unit: [n, C] features of unit length.
        regions: [n] whole numbers; 0 where a position is in no region.
        tau: sharpness of the softmax.

    Returns:
        [n, n]; rows sum to 1.

    Source: zdk258/CorrCLIP@103bc18.
    """
    similar = unit @ unit.mT
    loose = regions == 0
    inside = (regions[:, None] == regions) & ~loose
    outside = (loose[:, None] | loose) & (similar > similar.mean())
    allowed = inside | outside
    # Where everything is equally alike, nothing is more alike than the mean: such a position keeps to itself.
    alone = ~allowed.any(dim=1, keepdim=True) & torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return (tau * similar).masked_fill(~(allowed | alone), -torch.inf).softmax(dim=1)
