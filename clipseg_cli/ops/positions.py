"""Position embeddings for a patch grid of any shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor


def resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bicubic resize of learnt position embeddings to exactly `grid`; the class entry stays as it is.

    As published, the decision is by token count: a grid with as many patches as the native one takes the
    embeddings as they are, whatever its shape.

    Args:
        positions: [1 + g*g, W], class token first, native grid square.
        grid: (h, w), in patches.

    Returns:
        [1 + h*w, W].

    Raises:
        ShapeError: the native grid is not square.

    Source: chongzhou96/MaskCLIP@245d31f, mmseg/models/backbones/vit.py, resize_pos_embed.
    """
    native = math.isqrt(positions.shape[0] - 1)
    if native * native != positions.shape[0] - 1:
        raise ShapeError(f"position embeddings of a non-square grid: {positions.shape[0] - 1} patches")
    if grid[0] * grid[1] == native * native:
        return positions
    cls, patches = positions[:1], positions[1:]
    square = patches.T.reshape(1, -1, native, native).float()  # [1, W, g, g]
    resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)  # [1, W, h, w]
    return torch.cat([cls, resized.flatten(2)[0].T.to(cls)])
