"""A classifier for each class, by its own templates, and which of them speaks for each patch (FLOSS).

The cosines of the classifier that speaks take the place of the usual ones: their softmax is the published fused
probability, and all that follows works as without.

Reference: yasserben/FLOSS@ccf1d49 (arXiv:2504.10487).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from clipseg_cli.ops.experts import NONE, chosen_of, fuse_experts

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import Reader, Words


@dataclasses.dataclass(frozen=True)
class Experts:
    """A classifier for each class, and the usual one.

    Attributes:
        numbers: [C, count] templates of each class, -1 for none.
        text_embeds: [C + 1, Q, D] unit vectors.
        images: how many they were chosen on.
    """

    numbers: Tensor
    text_embeds: Tensor
    images: int

    def describe(self) -> dict[str, Any]:
        """For the record beside the results: which templates, counted from 0 in the order of the set."""
        return {
            "images": self.images,
            "templates": [[n for n in row if n != NONE] for row in self.numbers.tolist()],
        }

    def cosines(self, features: Tensor, reader: Reader, words: Words) -> Tensor:
        """Of the classifier that speaks for each patch: features [B, D, h, w] -> [B, Q, h, w]."""
        count, queries, width = self.text_embeds.shape
        found = []
        for one in features:  # the maps of all classifiers take room
            logits = reader.logits(one[None], self.text_embeds.view(-1, width))[0]
            logits = logits.unflatten(0, (count, queries))  # [C + 1, Q, h, w]
            prob = (words.scale * logits[:-1]).softmax(dim=1)
            expert = fuse_experts(prob, words.class_of)
            found.append(chosen_of(logits[:-1], logits[-1], expert))
        return torch.stack(found)
