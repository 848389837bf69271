"""Transformer blocks of image towers, library by library, under the names of `types.Block`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F

from clipseg_cli.ops.attention import merge_heads, split_heads

if TYPE_CHECKING:
    from torch import Tensor


class OpenClipBlock:
    """`open_clip.transformer.ResidualAttentionBlock`, whose attention is that of torch."""

    def __init__(self, block: Any) -> None:
        self.block, self.attn = block, block.attn

    def __call__(self, x: Tensor) -> Tensor:
        """As it was trained."""
        return self.block(x)  # type: ignore[no-any-return]

    def normed(self, x: Tensor) -> Tensor:
        """Before the attention."""
        return self.block.ln_1(x)  # type: ignore[no-any-return]

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values."""
        joined = F.linear(x, self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = (split_heads(part, self.attn.num_heads) for part in joined.chunk(3, dim=-1))
        return q, k, v

    def project(self, mixed: Tensor) -> Tensor:
        """Output projection."""
        return self.attn.out_proj(merge_heads(mixed))  # type: ignore[no-any-return]

    def scaled(self, x: Tensor) -> Tensor:
        """Layer scale."""
        return self.block.ls_1(x)  # type: ignore[no-any-return]

    def feed(self, x: Tensor) -> Tensor:
        """MLP and its residual."""
        return x + self.block.ls_2(self.block.mlp(self.block.ln_2(x)))  # type: ignore[no-any-return]

    def inner(self, x: Tensor) -> Tensor:
        """Between attention and MLP."""
        q, k, v = self.qkv(self.normed(x))
        mixed = self.scaled(self.project(F.scaled_dot_product_attention(q, k, v)))
        return self.block.ln_2(x + mixed)  # type: ignore[no-any-return]
