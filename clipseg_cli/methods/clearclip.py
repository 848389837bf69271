"""ClearCLIP: query-query attention, and nothing around it (arXiv:2407.12442).

The residual stream of CLIP carries a few channels of large values that belong to the whole image; they are the noise
in other readings. Without residual and MLP the last block hands on what attention says of each patch, alone.

Reference: mc-lan/ClearCLIP@ad68a40, open_clip/transformer.py, VisionTransformer.custom_attn (ignore_residual).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.ops.attention import self_attention
from clipseg_cli.types import Method

if TYPE_CHECKING:
    from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
    """softmax(q q^T / sqrt(Dh)) v, the class token included.

    Args:
        q, k, v: [B, Nh, N, Dh], class token first.
        grid: (h, w), in patches.

    Returns:
        [B, Nh, N, Dh].
    """
    del k, grid
    return self_attention(q, v)


METHOD = Method(
    attention,
    residual=False,
    mlp=False,
    positions="scale",
    padding="around",
    summary="query-query attention, no residual, no MLP",
    paper="arXiv:2407.12442",
    reference="mc-lan/ClearCLIP@ad68a40",
)
