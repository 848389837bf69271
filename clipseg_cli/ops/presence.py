"""Which classes are in a picture at all; the others are dropped before the argmax.

Most words of a long list are not in the picture, and each of them wins somewhere by chance. Three signs, all from
what has been computed anyway, with weights that may be 0:

- local: how sure the surest patches of a class are (after TagCLIP, arXiv:2312.12828, which tags pictures by patches);
- consistent: how little the map of a class changes when each patch takes over what patches like it say. What is there
  covers whole things; what is not there lights up in scattered patches (after FreeCP, arXiv:2508.00557);
- global: how probable the class is for the picture as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

SUREST = 0.02
"""Share of the patches that speak for a class."""

ALIKE = 0.3
"""Cosine, once the mean of the picture is taken off, from which patches count as alike."""

LEAST = 1e-6


def local_evidence(prob: Tensor) -> Tensor:
    """Mean probability of the surest patches of each class: [C, h, w] -> [C] in [0, 1]."""
    flat = prob.flatten(1)
    return flat.topk(max(1, round(SUREST * flat.shape[1])), dim=1).values.mean(dim=1)


def spatial_consistency(prob: Tensor, features: Tensor) -> Tensor:
    """How well each class map agrees with itself after it has been smoothed over patches that are alike.

    Args:
        prob: [C, h, w] probabilities.
        features: [W, h, w] of the same patches, of any length.

    Returns:
        [C] in [0, 1]: the shared part of both maps over their union.
    """
    flat = features.flatten(1).float()
    unit = F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=0)  # [W, n]
    alike = unit.mT @ unit
    alike = torch.where(alike > ALIKE, alike, 0.0)
    alike = alike / alike.sum(dim=1, keepdim=True).clamp(min=LEAST)
    before = prob.flatten(1)
    after = before @ alike.mT
    return torch.minimum(before, after).sum(dim=1) / torch.maximum(before, after).sum(dim=1).clamp(min=LEAST)
