"""Image towers of open_clip under one interface: how they begin, which blocks they have, how they end.

"The value path of a pooling layer" is what it gives where all its attention is on one token: that is how a token is
read by itself.
"""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F

from clipseg_cli.models.clip.blocks import OpenClipBlock, TimmBlock
from clipseg_cli.ops.positions import resize_positions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from clipseg_cli.types import Block, Positions

Grid = tuple[int, int]


class Tower(Protocol):
    """A transformer between pixels and the space of the words.

    Attributes:
        patch: side of a patch in pixels.
        width: of its tokens.
        prefix: tokens in front of the patches; the first of them is the class token.
        depth: number of blocks.
        visual: the image tower of the library that it comes from.
    """

    visual: Any
    patch: int
    width: int
    prefix: int
    depth: int

    def embed(self, image: Tensor, grid: Grid, positions: Positions) -> Tensor:
        """Normalised image [B, 3, H, W] of whole patches -> tokens [B, prefix + h*w, W] for the first block."""

    def blocks(self, grid: Grid) -> Sequence[Block]:
        """All blocks, ready for a grid."""

    def head(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Each of [B, n, W] by itself: behind the last norm [B, n, W], and in the space of the words [B, n, D]."""

    def pooled(self, x: Tensor) -> Tensor:
        """All tokens behind the last block -> the embedding of the image [B, D], as open_clip computes it."""


class OpenClipTower:
    """`open_clip.transformer.VisionTransformer`, also with the attentional pooling of CoCa."""

    prefix = 1

    def __init__(self, visual: Any) -> None:
        self.visual = visual
        known = visual.positional_embedding
        self.patch: int = visual.patch_size[0]
        self.width: int = visual.conv1.out_channels
        self.depth = len(visual.transformer.resblocks)
        self._positions = _kept(lambda grid, mode: resize_positions(known.detach(), grid, mode))

    def embed(self, image: Tensor, grid: Grid, positions: Positions) -> Tensor:
        """Class token and patches."""
        x = self._patches(image)
        cls = self.visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x], dim=1) + self._positions(grid, positions).to(x.dtype)
        return self.visual.ln_pre(x)  # type: ignore[no-any-return]

    def _patches(self, image: Tensor) -> Tensor:
        """The convolution without overlap that makes patches of pixels: [B, h*w, W]."""
        conv = self.visual.conv1
        if not image.is_cuda or conv.weight.dtype == torch.float32:
            return conv(image).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]
        # One product of matrices; cuDNN turns the image around before the convolution, which takes longer.
        parts = image.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))  # [B, 3, h, p, w, p]
        turned = parts.permute(0, 2, 4, 1, 3, 5).to(conv.weight.dtype, memory_format=torch.contiguous_format)
        return F.linear(turned.flatten(3).flatten(1, 2), conv.weight.flatten(1), conv.bias)

    def blocks(self, grid: Grid) -> Sequence[Block]:
        """The same for every grid."""
        del grid
        return [OpenClipBlock(block) for block in self.visual.transformer.resblocks]

    def head(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The last LayerNorm, behind the value path of the pooling where there is one; and the projection."""
        pool = self.visual.attn_pool
        if pool is not None:
            attn = pool.attn
            weight = attn.v_proj_weight if attn.v_proj_weight is not None else attn.in_proj_weight.chunk(3)[2]
            values = F.linear(pool.ln_k(tokens), weight, attn.in_proj_bias.chunk(3)[2])
            tokens = attn.out_proj(values)
        tokens = self.visual.ln_post(tokens)
        proj = self.visual.proj
        return tokens, tokens if proj is None else tokens @ proj.to(tokens.dtype)

    def pooled(self, x: Tensor) -> Tensor:
        """As in `VisionTransformer.forward`."""
        found, _ = self.visual._pool(x)
        proj = self.visual.proj
        return found if proj is None else found @ proj  # type: ignore[no-any-return]


class TimmTower:
    """A ViT or EVA of timm inside `open_clip.timm_model.TimmModel`: SigLIP, EVA, PE-Core, MobileCLIP-B, ViTamin."""

    def __init__(self, visual: Any) -> None:
        self.visual, self.trunk = visual, visual.trunk
        trunk = self.trunk
        self.width: int = trunk.embed_dim
        self.prefix: int = trunk.num_prefix_tokens
        self.depth = len(trunk.blocks)
        self.native: Grid = tuple(trunk.patch_embed.grid_size)
        self.patch = patch_of(visual)
        known, native = trunk.pos_embed, self.native
        self._positions = _kept(
            lambda grid, mode: resize_positions(
                known.detach()[0], grid, mode, prefix=known.shape[1] - native[0] * native[1]
            )
        )
        self._rotation = _kept(lambda grid: _rotation(trunk, grid))

    def embed(self, image: Tensor, grid: Grid, positions: Positions) -> Tensor:
        """Prefix tokens and patches."""
        trunk = self.trunk
        embed = trunk.patch_embed
        embed.strict_img_size = False  # positions are brought to the grid here
        x = embed(image)
        x = x.flatten(1, 2) if x.ndim == 4 else x  # [B, h*w, W]
        front = [t.expand(len(x), -1, -1) for t in (trunk.cls_token, trunk.reg_token) if t is not None]
        where = None if trunk.pos_embed is None else self._positions(grid, positions).to(x.dtype)
        if where is not None and trunk.no_embed_class:
            x = torch.cat([*front, x + where], dim=1)
        else:
            x = torch.cat([*front, x], dim=1)
            x = x if where is None else x + where
        return trunk.norm_pre(x)  # type: ignore[no-any-return]

    def blocks(self, grid: Grid) -> Sequence[Block]:
        """With the rotary embedding of the grid, where there is one."""
        turned = self._rotation(grid)
        return [TimmBlock(block, turned, self.prefix) for block in self.trunk.blocks]

    def head(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The last norm; and the value path of the pooling, and the heads of timm and of open_clip."""
        trunk = self.trunk
        tokens = trunk.norm(tokens)
        x, pool = tokens, trunk.attn_pool
        if pool is not None:
            x = pool.proj(pool.kv(x).chunk(2, dim=-1)[1])
            if pool.mlp is not None:
                x = x + pool.mlp(pool.norm(x))
        return tokens, self.visual.head(trunk.head(trunk.fc_norm(x)))

    def pooled(self, x: Tensor) -> Tensor:
        """As in `TimmModel.forward`."""
        found: Tensor = self.visual.head(self.trunk.forward_head(self.trunk.norm(x)))
        return found


def _kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """A function that remembers what it made for the last grids: of one tower, so that it goes when the tower goes."""
    return functools.lru_cache(maxsize=64)(make)


def _rotation(trunk: Any, grid: Grid) -> Tensor | None:
    """Rotary embedding of a grid, where a trunk has one."""
    rope = getattr(trunk, "rope", None)
    if rope is None:
        return None
    own = copy.deepcopy(rope)  # it keeps what it made for one grid
    own.update_feat_shape(list(grid))
    found: Tensor = own.get_embed()
    return found


def tower_of(visual: Any) -> Tower:
    """The tower that an image tower of open_clip with blocks is."""
    return TimmTower(visual) if type(visual).__name__ == "TimmModel" else OpenClipTower(visual)


TRANSFORMERS, CONVOLUTIONS = ("VisionTransformer", "Eva"), ("ConvNeXt", "FastVit")
"""Classes of timm that can be read."""


def patch_of(visual: Any) -> int:
    """Pixels between two features of any image tower of open_clip; 32 where it does not say."""
    trunk = getattr(visual, "trunk", None)
    if trunk is None:
        size = getattr(visual, "patch_size", 32)  # a ResNet halves five times
        return int(size[0]) if isinstance(size, (tuple, list)) else int(size)
    embed = getattr(trunk, "patch_embed", None)
    if embed is not None and hasattr(embed, "grid_size"):
        return int(embed.img_size[0]) // int(embed.grid_size[0])
    info = getattr(trunk, "feature_info", None)
    return int(info[-1]["reduction"]) if info else 32


def is_convolutional(visual: Any) -> bool:
    """Whether it is a tower of timm without attention blocks."""
    return type(visual).__name__ == "TimmModel" and type(visual.trunk).__name__ in CONVOLUTIONS


def unreadable(visual: Any) -> str:
    """Why a tower gives no dense features, as the end of a sentence; empty if it does."""
    kind = type(visual).__name__
    if kind == "ModifiedResNet":
        return ""
    if kind == "TimmModel":
        return _unreadable_trunk(visual)
    if kind != "VisionTransformer":
        return f"it is a {kind}, which this tool does not know"
    block = type(visual.transformer.resblocks[-1]).__name__
    if block != "ResidualAttentionBlock":
        return f"its blocks are of the kind {block}"
    if visual.attn_pool is not None and visual.attn_pool_contrastive is not None:
        return "it pools its tokens by attention twice"
    return ""


def _unreadable_trunk(visual: Any) -> str:
    kind = type(visual.trunk).__name__
    if kind not in TRANSFORMERS + CONVOLUTIONS:
        return f"the positions in the attention of a {kind} are bound to one grid"
    if getattr(visual.trunk, "rope_mixed", False):
        return "its rotary positions differ from block to block"
    return ""
