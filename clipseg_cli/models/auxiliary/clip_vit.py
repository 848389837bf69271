"""The image tower of a CLIP seen as FOUND sees a DINO: images in, what its last attention works with out."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from clipseg_cli.models.auxiliary.self_supervised import LastBlock
from clipseg_cli.models.clip.towers import tower_of
from clipseg_cli.models.weights.fingerprints import tower_fingerprint
from clipseg_cli.models.weights.precision import computing_as_held
from clipseg_cli.ops.attention import merge_heads, to_grid

if TYPE_CHECKING:
    from torch import Tensor


class ClipViT:
    """A frozen transformer of a CLIP, for images of any size.

    Args:
        visual: the image tower, in eval mode, with a class token.
        mean, std: of images in [0, 1], for this CLIP.
        known: its fingerprint, where its weights may not be as they were loaded any more.
    """

    def __init__(
        self,
        visual: Any,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        known: str = "",
    ) -> None:
        self.visual, self.tower, self._known = visual, tower_of(visual), known
        self.patch, self.width = self.tower.patch, self.tower.width
        device = next(visual.parameters()).device
        self._mean, self._std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (mean, std))

    @cached_property
    def fingerprint(self) -> str:
        """Equal for equal weights of the image tower, whatever the words."""
        return self._known or tower_fingerprint(self.visual)

    def last_block(self, image: Tensor) -> LastBlock:
        """Images [B, 3, H, W] in [0, 1] -> what the attention of the last block sees."""
        with computing_as_held(self.visual):
            return self._last_block(image)

    def _last_block(self, image: Tensor) -> LastBlock:
        x = (image - self._mean) / self._std
        x = F.pad(x, (0, -x.shape[3] % self.patch, 0, -x.shape[2] % self.patch))
        grid, prefix = (x.shape[2] // self.patch, x.shape[3] // self.patch), self.tower.prefix
        x = self.tower.embed(x, grid, "size")
        *before, last = self.tower.blocks(grid)
        for block in before:
            x = block(x)
        qkv = last.qkv(last.norm1(x))
        q, k, v = (to_grid(merge_heads(part)[:, prefix:], grid) for part in qkv)  # [B, W, h, w]
        first, keys = qkv[0][:, :, :1], torch.cat([qkv[1][:, :, :1], qkv[1][:, :, prefix:]], dim=2)
        attention = (first @ keys.mT * keys.shape[-1] ** -0.5).softmax(dim=-1)[:, :, 0]
        return LastBlock(q, k, v, attention, keys.shape[1])
