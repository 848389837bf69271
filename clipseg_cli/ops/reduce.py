"""From small score maps to one label a pixel, without ever holding a full-size map for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


class Reduced(NamedTuple):
    """What is left of Q maps at full size.

    Attributes:
        winner: [H, W] int32, index of the best word.
        score: [H, W] float32, its probability.
        log_total: [H, W] float32, log of the softmax denominator (or of the sum of the maps when these are
            probabilities already); with it, any single word's probability map can be made later.
    """

    winner: Tensor
    score: Tensor
    log_total: Tensor


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Whole maps [B, K, h, w] to [B, K, H, W] in float32, bilinearly; those of that size are handed back as they are.

    For training, which needs all classes of every pixel; `reduce_maps` decides without holding them.
    """
    if tuple(maps.shape[-2:]) == size:
        return maps.float()
    return F.interpolate(maps.float(), size, mode="bilinear", align_corners=False)


def bilinear_matrix(source: int, target: int, device: torch.device) -> Tensor:
    """[target, source] weights of a bilinear resize along one axis (align_corners=False, no antialias)."""
    position = (torch.arange(target, dtype=torch.float32) + 0.5) * (source / target) - 0.5
    position = position.clamp(min=0)
    low = position.floor().long().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    weight = position - low
    matrix = torch.zeros(target, source)
    rows = torch.arange(target)
    matrix[rows, low] += 1 - weight
    matrix[rows, high] += weight
    return matrix.to(device)


def reduce_maps(
    maps: Tensor, size: tuple[int, int], *, probabilities: bool = False, tile_bytes: int | None = None
) -> Reduced:
    """Upsample bilinearly and take argmax and softmax, tile by tile.

    The result is that of upsampling all maps, then softmax over words, then argmax; memory is one tile of all
    words plus three full-size maps.

    Args:
        maps: [Q, h, w] float32 logits, already multiplied by the softmax scale; or probabilities.
        size: (H, W) of the result.
        probabilities: the maps are scores to be compared as they are, without softmax; `score` is the
            winner's share of the sum over words, negative ones counted as zero.
        tile_bytes: size of a tile of all words; None suits the device.
    """
    queries, h, w = maps.shape
    height, width = size
    device = maps.device
    if tile_bytes is None:
        # On a CPU the tile should stay in the cache; on an accelerator it should fill the machine.
        tile_bytes = 2 << 20 if device.type == "cpu" else 256 << 20
    cells = max(1, tile_bytes // (4 * queries))
    columns = min(width, max(64, round(cells**0.5)))
    rows = min(height, max(1, cells // columns))

    maps = maps.float().permute(1, 2, 0).contiguous()  # [h, w, Q]: the reduction runs along memory
    vertical = bilinear_matrix(h, height, device)  # [H, h]
    horizontal = bilinear_matrix(w, width, device)  # [W, w]
    winner = torch.empty(size, dtype=torch.int32, device=device)
    score = torch.empty(size, device=device)
    log_total = torch.empty(size, device=device)
    for left in range(0, width, columns):
        across = horizontal[left : left + columns]
        first, last = _support(across)
        strip = torch.matmul(across[:, first:last], maps[:, first:last])  # [h, cols, Q]
        for top in range(0, height, rows):
            down = vertical[top : top + rows]
            above, below = _support(down)
            tile = (down[:, above:below] @ strip[above:below].flatten(1)).view(
                len(down), len(across), queries
            )
            best, index = tile.max(dim=2)
            here = (slice(top, top + len(down)), slice(left, left + len(across)))
            winner[here] = index.int()
            if probabilities:
                total = tile.clamp(min=0).sum(dim=2).clamp(min=1e-12)
                score[here] = best.clamp(min=0) / total
                log_total[here] = total.log()
            else:
                chance = tile.softmax(dim=2).gather(2, index[..., None])[..., 0]
                score[here] = chance
                log_total[here] = best - chance.log()
    return Reduced(winner, score, log_total)


def probability_map(map_: Tensor, log_total: Tensor, *, probabilities: bool = False) -> Tensor:
    """One word's probability at full size: [h, w] and the `log_total` [H, W] of `reduce_maps` -> [H, W]."""
    height, width = log_total.shape
    vertical = bilinear_matrix(map_.shape[0], height, map_.device)
    horizontal = bilinear_matrix(map_.shape[1], width, map_.device)
    full = vertical @ (map_.float() @ horizontal.T)
    if probabilities:
        return full.clamp(min=0) / log_total.exp()
    return full.sub_(log_total).exp_()


def _support(weights: Tensor) -> tuple[int, int]:
    """First and one past the last source cell that a block of output cells draws from."""
    used = weights.any(dim=0).nonzero()
    return int(used[0]), int(used[-1]) + 1
