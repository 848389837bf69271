"""MaskCLIP: every patch keeps its own value, nothing is mixed (arXiv:2112.01071).

Ordinary attention mixes the patches before the projection into the space of words, and the mixture speaks for
the whole image. Without it the last block is a chain of pointwise maps, so that each patch can be compared
with the words by itself. Residual and MLP of the block stay.

Reference: chongzhou96/MaskCLIP@245d31f, mmseg/models/backbones/vit.py, TransformerEncoderLayer.forward
(return_v); for ResNets mmseg/models/decode_heads/maskclip_head.py, forward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.types import Method

if TYPE_CHECKING:
    from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
    """The values themselves.

    Args:
        q, k, v: [B, Nh, N, Dh].
        grid: (h, w), in patches.

    Returns:
        v.
    """
    del q, k, grid
    return v


METHOD = Method(
    attention,
    residual=True,
    mlp=True,
    pointwise=True,
    summary="the value path of the last attention, nothing mixed",
    paper="arXiv:2112.01071",
    reference="chongzhou96/MaskCLIP@245d31f",
)
