"""Which images show most of what all of them show: a greedy choice over visual words.

Letters: N images, P patches, D features, V visual words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def visual_words(patches: Tensor, count: int, steps: int = 10) -> Tensor:
    """Centres [V, D] of patches [P, D]: k-means, begun with patches at equal distances; the same for equal patches."""
    count = min(count, len(patches))
    centres = patches[torch.linspace(0, len(patches) - 1, count).long()].clone()
    for _ in range(steps):
        near = torch.cdist(patches, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, near, patches)
        sizes = torch.bincount(near, minlength=count)
        centres = torch.where((sizes > 0)[:, None], sums / sizes.clamp(min=1)[:, None], centres)
    return centres


def word_shares(patches: Tensor, centres: Tensor) -> Tensor:
    """How much of an image each visual word is: patches [P, D] -> [V], which sum to 1."""
    near = torch.cdist(patches, centres).argmin(dim=1)
    return torch.bincount(near, minlength=len(centres)) / len(patches)


def most_covering(shares: Tensor, count: int, known: Sequence[int] = ()) -> list[int]:
    """Images that together show most, one after the other.

    Greedy choice for the sum over visual words of the root of what the chosen images show of it: the first sight of a
    word counts most, and no later one counts nothing. (A feature-based submodular function, so that the greedy choice
    is within 1 - 1/e of the best.)

    Args:
        shares: [N, V] of each image.
        count: how many to choose.
        known: those that are chosen already.

    Returns:
        `count` numbers of images, or as many as are left, the most telling first.
    """
    shares = shares.double()
    shown = shares[list(known)].sum(dim=0)
    left = torch.ones(len(shares), dtype=torch.bool)
    left[list(known)] = False
    found: list[int] = []
    while len(found) < count and left.any():
        gain = ((shown + shares).sqrt() - shown.sqrt()).sum(dim=1)
        best = int(gain.masked_fill(~left, -1.0).argmax())
        found.append(best)
        left[best] = False
        shown = shown + shares[best]
    return found
