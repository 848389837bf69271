"""SCLIP: patches attend by the similarity of their queries, and of their keys (arXiv:2312.01597).

A patch is most like itself and its own object in either space, so that attention stays local without being told to.
The two attention maps are added, not averaged: rows sum to 2. Residual and MLP of the block stay.

Reference: wangf3014/SCLIP@b56bd30, clip/model.py, custom_attn (csa).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.ops.attention import self_attention
from clipseg_cli.types import Method

if TYPE_CHECKING:
    from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
    """Correlative self-attention: (softmax(q q^T / sqrt(Dh)) + softmax(k k^T / sqrt(Dh))) v.

    Args:
        q, k, v: [B, Nh, N, Dh], class token first.
        grid: (h, w), in patches.

    Returns:
        [B, Nh, N, Dh].
    """
    del grid
    return self_attention(q, v) + self_attention(k, v)


METHOD = Method(
    attention,
    residual=True,
    mlp=True,
    positions="scale",
    padding="drop",
    summary="query-query plus key-key attention",
    paper="arXiv:2312.01597",
    reference="wangf3014/SCLIP@b56bd30",
)
