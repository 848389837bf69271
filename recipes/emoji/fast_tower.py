"""The image tower of the bundled CLIP, several times as fast on a CPU: bf16 products and attention by hand.

Letters: B images, N patches, W width, D embedding.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from clipseg_cli.ops.attention import merge_heads, split_heads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from clipseg_cli.types import Block, Positions

T = TypeVar("T")

PATCH = 8
GRID = 28
SHARPNESS = 4.0
"""Factor on the first LayerNorm of every image block, taken back in the weights behind it.

Nothing changes by it but GEM, which takes the length of the normed tokens as the sharpness of its attention: at width
192 that is half of what it is in a ViT-B, and every patch would attend to all others alike. A power of two is exact.
"""


class FastBlock:
    """A block of open_clip's under the tool's names (`types.Block`), with weights cast once and every result kept.

    Several methods that read the same tokens therefore pay for them once. It lives for one forward pass.

    Args:
        block: a `ResidualAttentionBlock`.
        compute: type of its products.
    """

    def __init__(self, block: Any, compute: torch.dtype) -> None:
        cast, self.heads = compute, block.attn.num_heads
        attn, mlp, first, second = block.attn, block.mlp, block.ln_1, block.ln_2
        self.norms = [
            ((first.weight * SHARPNESS).to(cast), (first.bias * SHARPNESS).to(cast), first.eps),
            (second.weight.to(cast), second.bias.to(cast), second.eps),
        ]
        self.joined = (attn.in_proj_weight / SHARPNESS).to(cast), attn.in_proj_bias.to(cast)
        self.out = attn.out_proj.weight.to(cast), attn.out_proj.bias.to(cast)
        self.up, self.down = (
            (layer.weight.to(cast), layer.bias.to(cast)) for layer in (mlp.c_fc, mlp.c_proj)
        )
        self.kept: dict[tuple[str, int], tuple[Tensor, Any]] = {}

    def _once(self, what: str, x: Tensor, make: Callable[[Tensor], T]) -> T:
        key = what, id(x)
        if key not in self.kept:
            self.kept[key] = x, make(x)  # x is kept too, so that its id is not given to another
        made: T = self.kept[key][1]
        return made

    def _norm(self, which: int, x: Tensor) -> Tensor:
        weight, bias, eps = self.norms[which]
        return F.layer_norm(x, weight.shape, weight, bias, eps)

    def __call__(self, x: Tensor) -> Tensor:
        """As it was trained."""

        def whole(x: Tensor) -> Tensor:
            q, k, v = self.qkv(self.norm1(x))
            return self.mlp(x + self.project(F.scaled_dot_product_attention(q, k, v)))

        return self._once("block", x, whole)

    def norm1(self, x: Tensor) -> Tensor:
        """Before the attention."""
        return self._once("norm1", x, lambda x: self._norm(0, x))

    def qkv(self, x: Tensor, *, placed: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values; where tokens stand does not matter here."""
        del placed

        def split(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = F.linear(x, *self.joined).chunk(3, -1)
            return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)

        return self._once("qkv", x, split)

    def project(self, mixed: Tensor) -> Tensor:
        """Output projection."""
        return F.linear(merge_heads(mixed), *self.out)

    def layer_scale(self, x: Tensor) -> Tensor:
        """There is no layer scale."""
        return x

    def mlp(self, x: Tensor) -> Tensor:
        """MLP and its residual."""
        return x + F.linear(F.gelu(F.linear(self._norm(1, x), *self.up)), *self.down)

    def pre_mlp(self, x: Tensor) -> Tensor:
        """Between attention and MLP."""
        q, k, v = self.qkv(self.norm1(x))
        return self._norm(1, x + self.project(F.scaled_dot_product_attention(q, k, v)))


class FastTower:
    """The image tower under the tool's names (`models.clip.towers.Tower`), for one batch of images.

    Args:
        visual: open_clip's image tower, whose weights are read.
        compute: type of its products.
        pixels: [B, 3, H, W] uint8.
        offset: which window of the position grid is used, in patches.
    """

    patch, prefix = PATCH, 1

    def __init__(self, visual: Any, compute: torch.dtype, pixels: Tensor, offset: tuple[int, int]) -> None:
        self.visual, self.compute = visual, compute
        self.all = [FastBlock(block, compute) for block in visual.transformer.resblocks]
        self.depth, self.width = len(self.all), int(visual.conv1.out_channels)
        self.tokens = self._embed(pixels, offset)

    def _embed(self, pixels: Tensor, offset: tuple[int, int]) -> Tensor:
        visual, compute = self.visual, self.compute
        b, _, height, width = pixels.shape
        h, w = height // PATCH, width // PATCH
        mean = torch.tensor(OPENAI_DATASET_MEAN, device=pixels.device).view(3, 1, 1) * 255
        std = torch.tensor(OPENAI_DATASET_STD, device=pixels.device).view(3, 1, 1) * 255
        image = ((pixels.float() - mean) / std).to(compute)
        patches = image.view(b, 3, h, PATCH, w, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w, -1)
        x = patches @ visual.conv1.weight.flatten(1).to(compute).T
        position = visual.positional_embedding[1:].view(GRID, GRID, -1)
        position = position[offset[0] : offset[0] + h, offset[1] : offset[1] + w].reshape(h * w, -1)
        x = x + position.to(compute)
        first = (visual.class_embedding + visual.positional_embedding[0]).to(compute)
        x = torch.cat([first.expand(b, 1, -1), x], dim=1)  # [B, 1 + N, W]
        return self._norm(visual.ln_pre, x)

    def _norm(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        return F.layer_norm(
            x, norm.normalized_shape, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps
        )

    def embed(self, image: Tensor, grid: tuple[int, int], positions: Positions) -> Tensor:
        """The tokens of the batch; its grid is never larger than that of the positions."""
        del image, grid, positions
        return self.tokens

    def blocks(self, grid: tuple[int, int]) -> Sequence[Block]:
        """The same for every grid."""
        del grid
        return self.all

    def head(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The last LayerNorm, and the projection behind it."""
        tokens = self._norm(self.visual.ln_post, tokens)
        return tokens, tokens @ self.visual.proj.to(self.compute)

    def pooled(self, x: Tensor) -> Tensor:
        """The class token in the space of the words: [B, D]."""
        return self.head(x[:, :1])[1][:, 0]

    def pooled_embedding(self) -> Tensor:
        """The embedding of each image [B, D]; of the last block only the class token is computed."""
        x = self.tokens
        for block in self.all[:-1]:
            x = block(x)
        last = self.all[-1]
        q, k, v = last.qkv(last.norm1(x))
        return self.pooled(
            last.mlp(x[:, :1] + last.project(F.scaled_dot_product_attention(q[:, :, :1], k, v)))
        )


@contextmanager
def fast_attention(*, on: bool) -> Iterator[None]:
    """Attention as two products and a softmax: in bf16 on a CPU three times as fast as torch's own, there and back."""
    original = F.scaled_dot_product_attention
    if on:
        F.scaled_dot_product_attention = plain_products
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def plain_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As torch's `scaled_dot_product_attention`, without what no method of the tool asks of it."""
    if dropout_p or is_causal or enable_gqa:
        raise NotImplementedError("attention here has neither dropout nor a causal mask nor grouped queries")
    scores = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.transpose(-1, -2)
    return (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ value
