"""Position embeddings for a patch grid of any shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import Positions


SAMPLING_OFFSET = 0.1
"""What DINO, and SCLIP and its successors after it, add to each side before they compute the scale."""


def resize_positions(
    positions: Tensor, grid: tuple[int, int], mode: Positions = "size", prefix: int = 1
) -> Tensor:
    """Bicubic resize of learnt position embeddings to `grid`; entries in front of the patches stay as they are.

    Published codes differ in two ways: where they sample, and when they leave the embeddings alone.

    Args:
        positions: [prefix + g*g, W], native grid square.
        grid: (h, w), in patches.
        mode: "size" resizes to exactly the grid, unless it has as many patches as the native one, in whatever
            shape (MaskCLIP); "shape" does so for any other shape (CLIP-DINOiser); "scale" samples by the factor
            (n + 0.1) / g, and decides by the number of patches (SCLIP, NACLIP, ClearCLIP, ProxyCLIP); "antialias"
            is "shape" with a low-pass filter (GEM).
        prefix: entries in front of the patches: one for a class token.

    Returns:
        [prefix + h*w, W].

    Raises:
        ShapeError: the native grid is not square.

    Source: chongzhou96/MaskCLIP@245d31f, mmseg/models/backbones/vit.py, resize_pos_embed; wangf3014/SCLIP@b56bd30,
    clip/model.py, interpolate_pos_encoding; WalBouss/GEM@5fa677c.
    """
    count = positions.shape[0] - prefix
    native = math.isqrt(count)
    if native * native != count:
        raise ShapeError(f"position embeddings of a non-square grid: {count} patches")
    by_count = mode in ("size", "scale")
    if grid == (native, native) or (by_count and grid[0] * grid[1] == native * native):
        return positions
    front, patches = positions[:prefix], positions[prefix:]
    square = patches.T.reshape(1, -1, native, native).float()  # [1, W, g, g]
    if mode == "scale":
        factors = [(side + SAMPLING_OFFSET) / native for side in grid]
        resized = F.interpolate(square, scale_factor=factors, mode="bicubic", align_corners=False)
    else:
        resized = F.interpolate(
            square, size=grid, mode="bicubic", align_corners=False, antialias=mode == "antialias"
        )
    return torch.cat([front, resized.flatten(2)[0].T.to(front)])  # [1, W, h, w] -> [prefix + h*w, W]
