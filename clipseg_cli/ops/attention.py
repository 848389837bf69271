"""Attention pieces that the reading methods share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[B, N, W] -> [B, Nh, N, Dh], heads contiguous in W as in `torch.nn.MultiheadAttention`."""
    return tokens.reshape(*tokens.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """[B, Nh, N, Dh] -> [B, N, W], the inverse of `split_heads`."""
    return tokens.transpose(1, 2).flatten(2)


def to_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, h*w, D] -> [B, D, h, w]."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)


def self_attention(z: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Like attends to like: softmax(z z^T / sqrt(Dh) + bias) v.

    Args:
        z: [B, Nh, N, Dh], queries and keys at once.
        v: [B, Nh, N, Dh].
        bias: [N, N] or anything that broadcasts to [B, Nh, N, N].

    Returns:
        [B, Nh, N, Dh].
    """
    return F.scaled_dot_product_attention(z, z, v, attn_mask=None if bias is None else bias.to(z))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
    """What CLIP was trained with: softmax(q k^T / sqrt(Dh)) v.

    Args:
        q, k, v: [B, Nh, N, Dh].
        grid: (h, w) in patches; ordinary attention does not need it.

    Returns:
        [B, Nh, N, Dh].
    """
    del grid
    return F.scaled_dot_product_attention(q, k, v)
