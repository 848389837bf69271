"""CLIP-DIY: a picture classified patch by patch, at several scales (arXiv:2309.14289)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.reduce import layer_tile
from clipseg_cli.ops.windows import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.ops.reduce import Layer, Tile


def square_patches(size: tuple[int, int], side: int, stride: int = 2) -> tuple[list[Window], tuple[int, int]]:
    """Patches as the published code cuts them: row by row, the remainder at the right and the bottom left out.

    Args:
        size: (H, W) of the picture.
        side: of a patch, in pixels.
        stride: parts of a side by which patches follow each other: 2 overlaps them by half.

    Returns:
        The patches, and the grid (rows, columns) that they stand in; none where the picture is smaller.

    Source: wysoczanska/clip-diy@f88932d, src/models/clip_diy.py, _tile_image.
    """
    step = max(1, side // stride)
    rows, columns = (max(0, (length - side) // step + 1) for length in size)
    found = [Window(r * step, c * step, side, side) for r in range(rows) for c in range(columns)]
    return found, (rows, columns)


class SaliencyFusion:
    """Scores weighed by where there is something: background by 1 - saliency, all others by saliency.

    Negative scores are multiplied as they are, as published.

    Args:
        saliency: [1, h, w] in [0, 1], brought to the size of the result.
        background: bool [Q], the words of the background class.

    Source: wysoczanska/clip-diy@f88932d, src/models/clip_diy.py, forward.
    """

    margin = 0

    def __init__(self, saliency: Layer, background: Tensor) -> None:
        self.saliency, self.background = saliency, background

    def __call__(self, scores: Tensor, tile: Tile, words: Sequence[int]) -> Tensor:
        """[rows, columns, n] -> the same, before the softmax, which has no temperature."""
        foreground = layer_tile(self.saliency, tile)  # [rows, columns, 1]
        behind = self.background[torch.as_tensor(words, device=scores.device)]
        return scores * torch.where(behind, 1 - foreground, foreground)
