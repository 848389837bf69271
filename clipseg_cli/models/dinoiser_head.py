"""The head of CLIP-DINOiser: what DINO would say, predicted from an inner layer of CLIP (arXiv:2312.12359).

Reference: wysoczanska/clip_dinoiser@a954aae, models/clip_dinoiser/clip_dinoiser.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

INNER = -3
"""The block whose second LayerNorm it was trained on."""


class DinoiserHead(nn.Module):
    """A `Guide` that looks into CLIP itself.

    Args:
        width: of the tower.
        features: of the map whose correlations gather the features of CLIP.
        inner: the block that it looks into.
    """

    def __init__(self, width: int, features: int, inner: int = INNER) -> None:
        super().__init__()
        self.inner = inner
        self.obj_proj = nn.Conv2d(width, features, 3, padding=1, padding_mode="replicate")
        self.bkg_decoder = nn.Conv2d(width, 1, 1)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], inner: int = INNER) -> DinoiserHead:
        """The head with the weights of a checkpoint, under the names of the published one."""
        weight = tensors["obj_proj.weight"]
        head = cls(weight.shape[1], weight.shape[0], inner)
        own = {key: tensors[key] for key in head.state_dict()}
        head.load_state_dict(own)
        return head.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Patches of the inner block [B, W, h, w] -> features [B, Dg, h, w]."""
        found: Tensor = self.obj_proj(x)
        return found

    def objectness(self, x: Tensor) -> Tensor:
        """The same -> logits [B, 1, h, w], above 0 for objects."""
        found: Tensor = self.bkg_decoder(F.normalize(x, dim=1))
        return found


def doubtful_background(prob: Tensor, objectness: Tensor, delta: float, background: int = 0) -> Tensor:
    """Patches of which neither words nor the head are sure become background.

    Args:
        prob: [B, C, h, w] probabilities.
        objectness: [B, 1, h, w] logits.
        delta: a largest probability below it counts as unsure.
        background: id of the class whose probability becomes 1 there; the others stay.

    Returns:
        [B, C, h, w].
    """
    unsure = (prob.amax(dim=1) < delta) & (objectness[:, 0].sigmoid() <= 0.5)  # [B, h, w]
    found = prob.clone()
    found[:, background] = torch.where(unsure, 1.0, prob[:, background])
    return found
