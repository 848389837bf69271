"""What a first segmentation says of attention: patches of one object attend to each other (ResCLIP, arXiv:2411.15851).

Letters: n patches, h x w of them, Q words.

Reference: yvhangyang/ResCLIP@0e085f7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


def patch_labels(prob: Tensor, grid: tuple[int, int], threshold: float) -> Tensor:
    """The word of each patch: the most frequent one of its pixels, the first of several.

    Args:
        prob: [Q, H, W] probabilities.
        grid: (h, w); patches are square, and pixels right of them or below are left out.
        threshold: pixels whose best word is less probable count as word 0.

    Returns:
        [h, w] int64.
    """
    best, word = prob.max(dim=0)
    word = word.masked_fill(best < threshold, 0)
    rows, columns = (max(1, length // cells) for length, cells in zip(word.shape, grid, strict=True))
    cut = word[: grid[0] * rows, : grid[1] * columns]
    cells = cut.unflatten(0, (grid[0], rows)).unflatten(2, (grid[1], columns))  # [h, p, w, p]
    flat = cells.permute(0, 2, 1, 3).flatten(2)  # [h, w, p * p]
    counts = torch.zeros(*grid, len(prob), device=word.device)
    return counts.scatter_add_(2, flat, torch.ones_like(flat, dtype=counts.dtype)).argmax(dim=2)


def same_object(labels: Tensor, std: float, *, split: bool = True) -> Tensor:
    """Which patches belong to one object, by their labels.

    With `split`, patches of one label fade by exp(-c / m) where another label lies between them, c being their distance
    along the longer axis and m the longest there is. As published, only the first part of the way is looked at, c of m
    steps.

    Args:
        labels: [h, w].
        std: of the Gaussian that each row is blurred with, along the patches row by row, ends of rows included.
        split: whether other labels between two patches part them.

    Returns:
        [n, n]; rows sum to about 1.
    """
    flat = labels.flatten()
    alike = (flat[:, None] == flat).float()  # [n, n]
    if split:
        alike = alike * _fading(labels)
    size = min(len(flat), int(6 * std + 1))
    size += 1 - size % 2
    place = torch.arange(size, device=labels.device, dtype=torch.float32) - size // 2
    kernel = torch.exp(-(place**2) / (2 * std**2))
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    blurred = F.conv1d(alike[:, None], kernel, padding=size // 2)[:, 0]
    return blurred / (blurred.sum(dim=1, keepdim=True) + 1e-8)


def _fading(labels: Tensor) -> Tensor:
    """[n, n] exp(-c / m) where another label lies on the way, else 1."""
    height, width = labels.shape
    flat, longest = labels.flatten(), max(height, width) - 1
    row, column = (
        axis.flatten().float()
        for axis in torch.meshgrid(
            torch.arange(height, device=labels.device),
            torch.arange(width, device=labels.device),
            indexing="ij",
        )
    )
    down, across = row[None] - row[:, None], column[None] - column[:, None]  # [n, n] from i to j
    far = torch.maximum(down.abs(), across.abs())
    parted = torch.zeros_like(far, dtype=torch.bool)
    for step in range(longest + 1):
        share = step / max(1, longest)
        there = (row[:, None] + down * share).round() * width + (column[:, None] + across * share).round()
        parted |= (flat[there.long()] != flat[:, None]) & (step <= far)
    return torch.where(parted, torch.exp(-far / max(1, longest)), 1.0)
