"""Which images show most of what all of them show: facility location, greedily. N images, D features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

REFERENCES = 4096
"""Images that are to be represented; of more, so many at equal distances in the list."""


def most_covering(images: Tensor, count: int, known: Sequence[int] = ()) -> list[int]:
    """Images that together represent all best, one after the other.

    Greedy choice for the sum, over all images, of the cosine with the most similar of the chosen ones, once the mean of
    all images is taken off. (Submodular, so that the greedy choice is within 1 - 1/e of the best.)

    Args:
        images: [N, D] mean feature of each image.
        count: how many to choose.
        known: those that are chosen already.

    Returns:
        `count` numbers of images, or as many as are left, the most informative first.
    """
    unit = F.normalize(images.double() - images.double().mean(dim=0), dim=1)
    chosen = torch.linspace(0, len(unit) - 1, min(REFERENCES, len(unit))).long()
    alike = unit @ unit[chosen].mT  # [N, references]
    taken = list(known)
    best = alike[taken].amax(dim=0) if taken else torch.full((len(chosen),), -1.0, dtype=alike.dtype)
    found: list[int] = []
    for _ in range(min(count, len(unit) - len(set(taken)))):
        gain = torch.maximum(alike, best).sum(dim=1)
        gain[[*taken, *found]] = -torch.inf
        found.append(int(gain.argmax()))
        best = torch.maximum(best, alike[found[-1]])
    return found
