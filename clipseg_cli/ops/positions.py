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


def resize_positions(positions: Tensor, grid: tuple[int, int], mode: Positions = "size") -> Tensor:
    """Bicubic resize of learnt position embeddings to `grid`; the class entry stays as it is.

    Published codes differ in two ways: where they sample, and when they leave the embeddings alone.

    Args:
        positions: [1 + g*g, W], class token first, native grid square.
        grid: (h, w), in patches.
        mode: "size" resizes to exactly the grid, unless it has as many patches as the native one, in whatever
            shape (MaskCLIP); "shape" does so for any other shape (CLIP-DINOiser); "scale" samples by the factor
            (n + 0.1) / g, and decides by the number of patches (SCLIP, NACLIP, ClearCLIP, ProxyCLIP); "antialias"
            is "shape" with a low-pass filter (GEM).

    Returns:
        [1 + h*w, W].

    Raises:
        ShapeError: the native grid is not square.

    Source: chongzhou96/MaskCLIP@245d31f, mmseg/models/backbones/vit.py, resize_pos_embed; wangf3014/SCLIP@b56bd30,
    clip/model.py, interpolate_pos_encoding; WalBouss/GEM@5fa677c.
    """
    native = math.isqrt(positions.shape[0] - 1)
    if native * native != positions.shape[0] - 1:
        raise ShapeError(f"position embeddings of a non-square grid: {positions.shape[0] - 1} patches")
    by_count = mode in ("size", "scale")
    if grid == (native, native) or (by_count and grid[0] * grid[1] == native * native):
        return positions
    cls, patches = positions[:1], positions[1:]
    square = patches.T.reshape(1, -1, native, native).float()  # [1, W, g, g]
    if mode == "scale":
        factors = [(side + SAMPLING_OFFSET) / native for side in grid]
        resized = F.interpolate(square, scale_factor=factors, mode="bicubic", align_corners=False)
    else:
        resized = F.interpolate(
            square, size=grid, mode="bicubic", align_corners=False, antialias=mode == "antialias"
        )
    return torch.cat([cls, resized.flatten(2)[0].T.to(cls)])  # [1, W, h, w] -> [1 + h*w, W]
