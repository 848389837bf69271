"""Transformer blocks of image towers, library by library, under the names of `types.Block`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from clipseg_cli.ops.attention import merge_heads, split_heads

if TYPE_CHECKING:
    from torch import Tensor


class OpenClipBlock:
    """`open_clip.transformer.ResidualAttentionBlock`, whose attention is that of torch."""

    def __init__(self, block: Any) -> None:
        self.block, self.attn = block, block.attn

    def __call__(self, x: Tensor) -> Tensor:
        """As it was trained.

        Without torch's own attention, which has tokens in front of the batch: some percent more time in float32, and
        a layout for which oneDNN has no fast product of half floats.
        """
        q, k, v = self.qkv(self.norm1(x))
        return self.mlp(x + self.layer_scale(self.project(F.scaled_dot_product_attention(q, k, v))))

    def norm1(self, x: Tensor) -> Tensor:
        """Before the attention."""
        return self.block.ln_1(x)  # type: ignore[no-any-return]

    def qkv(self, x: Tensor, *, placed: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values; this tower turns no token by where it stands."""
        del placed
        joined = F.linear(x, self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = (split_heads(part, self.attn.num_heads) for part in joined.chunk(3, dim=-1))
        return q, k, v

    def project(self, mixed: Tensor) -> Tensor:
        """Output projection."""
        return self.attn.out_proj(merge_heads(mixed))  # type: ignore[no-any-return]

    def layer_scale(self, x: Tensor) -> Tensor:
        """Layer scale."""
        return self.block.ls_1(x)  # type: ignore[no-any-return]

    def mlp(self, x: Tensor) -> Tensor:
        """MLP and its residual."""
        return x + self.block.ls_2(self.block.mlp(self.block.ln_2(x)))  # type: ignore[no-any-return]

    def pre_mlp(self, x: Tensor) -> Tensor:
        """Between attention and MLP."""
        q, k, v = self.qkv(self.norm1(x))
        mixed = self.layer_scale(self.project(F.scaled_dot_product_attention(q, k, v)))
        return self.block.ln_2(x + mixed)  # type: ignore[no-any-return]


class TimmBlock:
    """`Block` of timm's vision_transformer, or `EvaBlock` and `EvaBlockPostNorm` of its eva.

    Args:
        block: one of these.
        rope: [n, 2 * Dh] rotary embedding of the patches, where the tower has one.
        prefix: tokens in front of the patches, which are not rotated.
    """

    def __init__(self, block: Any, rope: Tensor | None, prefix: int) -> None:
        self.block, self.attn, self.rope, self.prefix = block, block.attn, rope, prefix
        self.post_norm = type(block).__name__ == "EvaBlockPostNorm"

    def __call__(self, x: Tensor) -> Tensor:
        """As it was trained."""
        found: Tensor = self.block(x) if self.rope is None else self.block(x, rope=self.rope)
        return found

    def norm1(self, x: Tensor) -> Tensor:
        """Before the attention."""
        return x if self.post_norm else self.block.norm1(x)

    def qkv(self, x: Tensor, *, placed: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values; normed and rotated where the tower does so."""
        q, k, v = (split_heads(part, self.attn.num_heads) for part in self._joined(x))
        q, k = self.attn.q_norm(q), self.attn.k_norm(k)
        if self.rope is not None and placed:
            q, k = self._rotated(q).type_as(v), self._rotated(k).type_as(v)
        return q, k, v

    def _joined(self, x: Tensor) -> tuple[Tensor, ...]:
        attn = self.attn
        if attn.qkv is None:
            return attn.q_proj(x), attn.k_proj(x), attn.v_proj(x)
        if getattr(attn, "q_bias", None) is None:
            return attn.qkv(x).chunk(3, dim=-1)  # type: ignore[no-any-return]
        bias = torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
        return F.linear(x, attn.qkv.weight, bias).chunk(3, dim=-1)

    def _rotated(self, z: Tensor) -> Tensor:
        from timm.layers.pos_embed_sincos import apply_rot_embed_cat  # imported by who built the block

        rope: Any = self.rope
        half = getattr(self.attn, "rotate_half", False)
        patches = apply_rot_embed_cat(z[:, :, self.prefix :], rope, half=half)
        return torch.cat([z[:, :, : self.prefix], patches], dim=2)

    def project(self, mixed: Tensor) -> Tensor:
        """Norm of the attention, where the tower has one, and output projection."""
        return self.attn.proj(self.attn.norm(merge_heads(mixed)))  # type: ignore[no-any-return]

    def layer_scale(self, x: Tensor) -> Tensor:
        """Layer scale, or the norm behind the attention."""
        if self.post_norm:
            return self.block.norm1(x)  # type: ignore[no-any-return]
        if hasattr(self.block, "ls1"):
            return self.block.ls1(x)  # type: ignore[no-any-return]
        return x if self.block.gamma_1 is None else self.block.gamma_1 * x

    def mlp(self, x: Tensor) -> Tensor:
        """MLP and its residual."""
        block = self.block
        if self.post_norm:
            return x + block.norm2(block.mlp(x))  # type: ignore[no-any-return]
        mixed = block.mlp(block.norm2(x))
        if hasattr(block, "ls2"):
            return x + block.ls2(mixed)  # type: ignore[no-any-return]
        gamma = getattr(block, "gamma_2", None)
        return x + (mixed if gamma is None else gamma * mixed)  # type: ignore[no-any-return]

    def pre_mlp(self, x: Tensor) -> Tensor:
        """Between attention and MLP."""
        q, k, v = self.qkv(self.norm1(x))
        behind = x + self.layer_scale(self.project(F.scaled_dot_product_attention(q, k, v)))
        return behind if self.post_norm else self.block.norm2(behind)
