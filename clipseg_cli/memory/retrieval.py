"""RNS' reading of labelled images: a classifier for every image, fitted to the rows that it retrieves (`ops.rns`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops import rns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.memory.labelled import Labelled
    from clipseg_cli.types import Levels

STEPS = 700
"""Of AdamW, for every image; as published."""

SMALLEST = 1e-12


class Retrieval:
    """Rows of labelled images, ready to teach.

    Args:
        images: that were labelled; the last of their levels live in the space of the words.
        text_embeds: [Q, D].
        query_to_class: [Q].
        steps: of the fit.

    Attributes:
        known: bool [C] classes that any image shows.
    """

    def __init__(
        self,
        images: Sequence[Labelled],
        text_embeds: Tensor,
        query_to_class: Sequence[int],
        steps: int = STEPS,
    ) -> None:
        self.width = text_embeds.shape[1]
        rows = [rns.class_rows(one.features()[:, -self.width :], one.rows(one.shares)) for one in images]
        self.support = torch.stack([row for row, _ in rows])  # [P, C, D]
        self.present = torch.stack([there for _, there in rows])  # [P, C]
        self.text, self.query_to_class, self.steps = text_embeds.float(), tuple(query_to_class), steps
        self.known = self.present.any(dim=0)

    def read(self, levels: Levels) -> Tensor:
        """The last of the levels [B, D, h, w]."""
        return levels.last()

    def judge(self, map_: Tensor) -> Tensor:
        """The features of an image [D, h, w] -> log probabilities [C, h, w]; always the same for the same features."""
        patches = map_.flatten(1).mT  # [n, D]
        training = rns.training_vectors(patches, self.text, self.query_to_class, self.support, self.present)
        bound = self.width**-0.5  # as a linear layer begins
        random = torch.rand(len(self.known), self.width, generator=torch.Generator().manual_seed(0))
        weight, bias = rns.fit(training, ((2 * random - 1) * bound).to(patches), steps=self.steps)
        found = rns.classify(patches, weight, bias).clamp(min=SMALLEST).log()
        logits: Tensor = found.mT.unflatten(1, (map_.shape[1], map_.shape[2]))
        return logits
