"""Features gathered by the similarity of another network's patches: ProxyCLIP and CLIP-DINOiser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


def proxy_attention(proxy: Tensor, *, beta: float = 1.2, gamma: float = 3.0) -> Tensor:
    """Which patches a patch attends to, by the features of another network.

    Args:
        proxy: [B, Dp, h, w], of any length.
        beta: similarities below so many times their mean are cut.
        gamma: sharpness of the softmax.

    Returns:
        [B, h*w, h*w]; rows sum to 1.

    Source: mc-lan/ProxyCLIP@e7b767f, open_clip/transformer.py, custom_attn (arXiv:2408.04883, equations 3 and 4).
    """
    unit = F.normalize(proxy.flatten(2), dim=1)  # [B, Dp, n]
    similar = unit.mT @ unit
    similar = gamma * (similar - beta * similar.mean(dim=(1, 2), keepdim=True))
    unlike = similar < 0
    # A patch that is like nothing, such as one of zeros, keeps to itself.
    alone = unlike.all(dim=-1, keepdim=True) & torch.eye(
        unlike.shape[-1], dtype=torch.bool, device=unlike.device
    )
    return similar.masked_fill(unlike & ~alone, -torch.inf).softmax(dim=-1)


def correlations(features: Tensor, gamma: float = 0.2) -> Tensor:
    """Cosines between all patches, those below `gamma` as 0.

    Args:
        features: [B, W, h, w], of any length.
        gamma: in [-1, 1].

    Returns:
        [B, h*w, h*w].
    """
    unit = F.normalize(features.flatten(2), dim=1)
    similar = unit.mT @ unit
    return similar.masked_fill(similar < gamma, 0.0)


def pool_by_correlation(features: Tensor, correlation: Tensor, grid: tuple[int, int]) -> Tensor:
    """Every patch becomes the mean of those that it correlates with.

    Args:
        features: [B, D, h', w'] in the space of the words; resized bilinearly to the grid of the correlations.
        correlation: [B, h*w, h*w] of `correlations`.
        grid: (h, w) of the correlations.

    Returns:
        [B, D, h, w].

    Source: wysoczanska/clip_dinoiser@a954aae, models/clip_dinoiser/clip_dinoiser.py, compute_weighted_pool
    (arXiv:2312.12359, equation 3).
    """
    if tuple(features.shape[2:]) != grid:
        features = F.interpolate(features, grid, mode="bilinear", align_corners=False)
    weights = correlation / (correlation.sum(dim=-1, keepdim=True) + 1e-6)  # [B, n, n]
    pooled: Tensor = features.flatten(2) @ weights.mT  # [B, D, n]
    return pooled.view(*pooled.shape[:2], *grid)
