"""Whole-image CLIP where a dense reader is expected: one feature for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

    def __call__(self, image: Tensor, regions: Tensor | None = None) -> DenseFeatures:
        """Normalised image [B, 3, n, n] -> one feature, on a grid (1, 1)."""
        whole = self.model.encode_image(image)
        features = whole[:, :, None, None]  # [B, D, 1, 1]
        return DenseFeatures(features, None, features, whole, whole=whole)

    logits = staticmethod(cosine_logits)
