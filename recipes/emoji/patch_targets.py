"""What patches of composed scenes show, as targets of a network that is pretrained by their masks.

Letters: B images, N patches, K instances, T texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.emoji.loader import Batch

THING_WEIGHT = 1.5
"""How much more a patch of a thing counts than one of a surface."""


class PatchTargets:
    """What the patches of a batch show, among the texts of a step.

    A patch on a border shows several things by their shares, so that a student's scores, resized, cross where the
    things meet. Other names of what is shown are no wrong answers; what else the scene shows is one.
    """

    def __init__(self, batch: Batch, concepts: Tensor, related: Tensor, *, mirrored: bool) -> None:
        device = related.device
        place = torch.zeros(len(related), dtype=torch.long, device=device)
        place[concepts] = torch.arange(len(concepts), device=device)
        cover, winner = (torch.from_numpy(one).to(device) for one in (batch.cover, batch.patch_labels))
        if mirrored:
            grid = round(winner.shape[1] ** 0.5)
            cover = cover.unflatten(2, (grid, grid)).flip(3).flatten(2)
            winner = winner.unflatten(1, (grid, grid)).flip(2).flatten(1)
        instances = torch.from_numpy(batch.labels).to(device)  # [B, K]
        things = torch.from_numpy(batch.thing_instances).to(device)
        self.winner = place[winner]  # [B, N]
        self.at = place[instances.clamp(min=0)]  # [B, K]
        self.share = (
            cover * torch.where(things, THING_WEIGHT, 1.0)[..., None] * (instances >= 0)[..., None]
        ).mT
        seen = torch.zeros(len(cover), len(concepts), device=device).scatter_add_(
            1, self.at, (instances >= 0).float()
        )
        self.blocked = related[winner][..., concepts] & (seen == 0)[:, None]  # [B, N, T]

    def cross_entropy(self, scores: Tensor) -> Tensor:
        """Cross entropy of scores [B, N, T] to the shares of the patches, a mean over weighted patches."""
        said = scores.masked_fill(self.blocked, float("-inf")).log_softmax(-1)
        said = said.gather(2, self.at[:, None].expand(-1, said.shape[1], -1))  # [B, N, K]
        # Places without an instance may point at a blocked text.
        said = torch.where(self.share > 0, said, 0.0)
        return -(said * self.share).sum() / self.share.sum()

    def accuracy(self, scores: Tensor) -> Tensor:
        """The share of patches whose best text is that of what covers most of them."""
        best = scores.masked_fill(self.blocked, float("-inf")).argmax(-1)
        return (best == self.winner).float().mean()
