"""Overlapping windows: where they lie, and how their maps become one map of the image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

KEPT = 64
"""Maps of how often cells are covered that are kept for sizes that come again."""


@dataclass(frozen=True)
class Window:
    """A rectangle [top, top + height) x [left, left + width)."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def divided(self, cell: int) -> Window:
        """The same window counted in cells; sides are rounded up, so that no pixel is lost."""
        return Window(self.top // cell, self.left // cell, -(-self.height // cell), -(-self.width // cell))


def plan_windows(size: tuple[int, int], window: int, stride: int) -> list[Window]:
    """Windows row by row; one that would cross the edge is shifted back inside.

    Args:
        size: (H, W) of the image.
        window: side of the square window; 0 takes the whole image. An image smaller than the window is one
            smaller window.
        stride: step; at least 1, at most `window`, so that every pixel is covered.

    Source: sinahmr/NACLIP@0cac3a6, naclip.py, forward_slide.
    """
    if window == 0:
        return [Window(0, 0, *size)]
    starts = [_starts(length, window, stride) for length in size]
    return [
        Window(top, left, min(window, size[0]), min(window, size[1]))
        for top in starts[0]
        for left in starts[1]
    ]


def _starts(length: int, window: int, stride: int) -> list[int]:
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - window), 0) for i in range(count)]


def cut_windows(maps: Tensor, windows: Sequence[Window]) -> Iterator[Tensor]:
    """The part of maps [..., H, W] that lies in each window, as views, in order."""
    for (top, height), row in groupby(windows, key=lambda window: (window.top, window.height)):
        band = maps[..., top : top + height, :]  # once for all windows of a row
        for window in row:
            yield band[..., window.left : window.left + window.width]


def without_padding(map_: Tensor, window: Window, padding: tuple[int, int, int, int]) -> Tensor:
    """The part of maps [..., C, h, w] that lies over a window, at the size of the window: [..., C, height, width].

    Args:
        map_: its grid covers the padding, too.
        window: in pixels.
        padding: pixels around it, (top, bottom, left, right).
    """
    top, bottom, left, right = padding
    full = _resized(map_, (top + window.height + bottom, left + window.width + right))
    return full[..., top : top + window.height, left : left + window.width]


def stitch(maps: Sequence[Tensor], windows: Sequence[Window], size: tuple[int, int]) -> Tensor:
    """Average overlapping maps by how often each cell is covered.

    Args:
        maps: one [C, h, w], or [B, C, h, w] of images of one size, for each window; bilinearly resized to the window
            where sizes differ.
        windows: in the cells of the result; together they cover it.
        size: (H, W) of the result.

    Returns:
        [C, H, W], or [B, C, H, W].
    """
    if len(windows) == 1 and tuple(maps[0].shape[-2:]) == size:
        return maps[0]
    total = maps[0].new_zeros((*maps[0].shape[:-2], *size))
    for part, place, window in zip(maps, cut_windows(total, windows), windows, strict=True):
        place.add_(_resized(part, (window.height, window.width)))
    return total / _cover(tuple(windows), size, total.dtype, total.device)


@lru_cache(maxsize=KEPT)
@torch.inference_mode(False)
def _cover(
    windows: tuple[Window, ...], size: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """How many windows each cell is in: [H, W]."""
    cover = torch.zeros(size, dtype=dtype)
    for place in cut_windows(cover, windows):
        place.add_(1)
    return cover.to(device, non_blocking=True)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [..., C, h, w] at another size, bilinearly; those of that size are handed back as they are."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    joined = maps if maps.ndim == 4 else maps[None]
    full = F.interpolate(joined, size=size, mode="bilinear", align_corners=False)
    return full if maps.ndim == 4 else full[0]
