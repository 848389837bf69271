"""Whole-image CLIP where a dense reader is expected: one feature for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipseg_cli.models.clip.towers import OpenClipTower
from clipseg_cli.models.clip.vit import VisionTransformer
from clipseg_cli.ops.similarity import cosine_logits
from clipseg_cli.types import DenseFeatures

if TYPE_CHECKING:
    from torch import Tensor


class WholeReader:
    """What CLIP was trained for: `encode_image`, on images of the native size.

    Args:
        model: a CLIP of open_clip, of any architecture.
        side: native, in pixels.
    """

    def __init__(self, model: Any, side: int) -> None:
        self.model, self.patch = model, side
        plain = isinstance(model.visual, VisionTransformer)
        self._tower = OpenClipTower(model.visual) if plain else None

    def __call__(self, image: Tensor, regions: Tensor | None = None) -> DenseFeatures:
        """Normalised image [B, 3, n, n] -> one feature, on a grid (1, 1)."""
        whole = self.model.encode_image(image) if self._tower is None else self._embed(self._tower, image)
        features = whole[:, :, None, None]  # [B, D, 1, 1]
        return DenseFeatures(features, None, features, whole, whole=whole)

    def _embed(self, tower: OpenClipTower, image: Tensor) -> Tensor:
        """`encode_image` by the blocks of a dense reading, which are fast in half floats too."""
        grid = tower.visual.grid_size
        x = tower.embed(image, grid, "size")
        for block in tower.blocks(grid):
            x = block(x)
        return tower.pooled(x)

    logits = staticmethod(cosine_logits)
