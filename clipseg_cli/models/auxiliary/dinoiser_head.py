"""The head of CLIP-DINOiser: what DINO would say, predicted from an inner layer of CLIP (arXiv:2312.12359).

Reference: wysoczanska/clip_dinoiser@a954aae, models/clip_dinoiser/clip_dinoiser.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

from clipseg_cli.errors import ModelError
from clipseg_cli.models.weights.fingerprints import fingerprint
from clipseg_cli.models.weights.fitting import fit_weights

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
        """The head with the weights of a checkpoint, under the names of the published one.

        Raises:
            ModelError: some are missing, of another shape or not finite.
        """
        weight = tensors.get("obj_proj.weight")
        if weight is None or weight.ndim != 4:
            raise ModelError("this is no head of CLIP-DINOiser: it has no obj_proj.weight of four dimensions")
        head = cls(weight.shape[1], weight.shape[0], inner)
        fit_weights(
            head,
            {key: tensors[key] for key in head.state_dict() if key in tensors},
            source="this checkpoint",
            name="the head of CLIP-DINOiser",
            hint=lambda: "take the checkpoint of the authors, or an earlier one of your own",
        )
        return head.eval().requires_grad_(False)

    @property
    def fingerprint(self) -> str:
        """Equal for equal weights."""
        return fingerprint(self, {"inner": self.inner})

    def forward(self, x: Tensor) -> Tensor:
        """Patches of the inner block [B, W, h, w] -> features [B, Dg, h, w]."""
        found: Tensor = self.obj_proj(x)
        return found

    def objectness(self, x: Tensor) -> Tensor:
        """The same -> logits [B, 1, h, w], above 0 for objects."""
        found: Tensor = self.bkg_decoder(F.normalize(x, dim=1))
        return found
