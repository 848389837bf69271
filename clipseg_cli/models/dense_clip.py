"""Reading a frozen CLIP tower densely: [B, 3, H, W] -> one feature for each patch.

All blocks stay as open_clip built them; only the last one (for some methods: the last few) is recomputed around the
method. A ResNet has no such block: its attention pooling plays that part.

Dense readings drop the class token and the pooling, so `pool_type` and `final_ln_after_pool` make no difference:
the last LayerNorm acts on single tokens either way.
"""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from clipseg_cli.errors import ModelError
from clipseg_cli.models.blocks import OpenClipBlock
from clipseg_cli.ops.attention import merge_heads, split_heads
from clipseg_cli.ops.positions import resize_positions
from clipseg_cli.ops.similarity import cosine_logits
from clipseg_cli.types import DenseFeatures, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import Block, Guide, Method


class DenseViT:
    """Dense reading of `open_clip.transformer.VisionTransformer`.

    Args:
        visual: the tower, in eval mode.
        method: what replaces the attention of the last block.
        keys: hand out keys where the method has them; False saves their projection.
        guide: the other network, for a method that asks for one.
        black: [3] what a black pixel becomes by normalisation, for methods that pad with black.

    Raises:
        ModelError: the tower pools by attention or has blocks of another kind.
    """

    def __init__(
        self,
        visual: Any,
        method: Method,
        *,
        keys: bool = True,
        guide: Guide | None = None,
        black: Tensor | None = None,
    ) -> None:
        reason = unreadable(visual)
        if reason:
            raise ModelError(f"cannot read this image tower densely: {reason}")
        self.visual, self.method, self.guide, self.black = visual, method, guide, black
        self.tap = _tapped(guide, len(visual.transformer.resblocks), method.blocks)
        self.keys = keys and method.keys
        self.patch: int = visual.patch_size[0]

    def __call__(self, image: Tensor) -> DenseFeatures:
        """Normalised image [B, 3, H, W] -> features on the grid (ceil(H / patch), ceil(W / patch)).

        What happens to sides that are no multiple of the patch is the method's (`Method.padding`).
        """
        image, overhang = self._fit(image)
        grid = (image.shape[2] // self.patch, image.shape[3] // self.patch)
        x = self._embed(image, grid)
        blocks = self.visual.transformer.resblocks
        behind = max(0, len(blocks) - self.method.blocks)
        inner = None
        for i, block in enumerate(blocks[:behind]):
            if i == self.tap:
                inner = _to_grid(OpenClipBlock(block).inner(x)[:, 1:], grid)
            x = block(x)
        last = [OpenClipBlock(block) for block in blocks[behind:]]
        seen = image if inner is None else inner
        keys, guide = None, None if self.guide is None else self.guide(seen)
        if self.method.read is not None:
            found = self.method.read(last, x, grid, guide)
        else:
            found, keys = self._last_block(last[0], x, grid)
        tokens = self.visual.ln_post(found.patches)  # [B, h*w, W]
        cls = None if found.cls is None else self._project(self.visual.ln_post(found.cls))[:, 0]
        features = _to_grid(self._project(tokens), found.grid)
        if self.method.pool is not None and guide is not None:
            features = self.method.pool(features, guide)
        return DenseFeatures(
            features,
            None if keys is None else _to_grid(keys, grid),
            _to_grid(tokens, found.grid),
            cls,
            overhang,
            None if self.guide is None else self.guide.objectness(seen),
        )

    logits = staticmethod(cosine_logits)

    def _fit(self, image: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
        """Whole patches, and by how many pixels the result is to be cut: (top, bottom, left, right)."""
        down, across = -image.shape[2] % self.patch, -image.shape[3] % self.patch
        if self.method.padding == "around":
            top, left = down // 2, across // 2
            overhang = (top, down - top, left, across - left)
            return F.pad(image, (left, across - left, top, down - top)), overhang
        drops = self.method.padding == "drop" and min(image.shape[2:]) >= self.patch
        if drops:  # the patch convolution leaves the rest out by itself
            return image, _NO_OVERHANG
        padded = F.pad(image, (0, across, 0, down))
        if self.method.padding == "black" and self.black is not None:
            color = self.black.to(image).view(3, 1, 1)
            padded[..., image.shape[2] :, :] = color
            padded[..., image.shape[3] :] = color
        return padded, _NO_OVERHANG

    def _project(self, tokens: Tensor) -> Tensor:
        """[..., W] -> [..., D]."""
        proj = self.visual.proj
        return tokens if proj is None else tokens @ proj.to(tokens.dtype)

    def _embed(self, image: Tensor, grid: tuple[int, int]) -> Tensor:
        x = self.visual.conv1(image).flatten(2).transpose(1, 2)  # [B, h*w, W]
        cls = self.visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x], dim=1)  # [B, N, W]
        return self.visual.ln_pre(x + self._positions(grid).to(x.dtype))  # type: ignore[no-any-return]

    @functools.lru_cache(maxsize=64)  # noqa: B019  # a reader lives as long as its run; grids repeat
    def _positions(self, grid: tuple[int, int]) -> Tensor:
        return resize_positions(self.visual.positional_embedding.detach(), grid, self.method.positions)

    def _last_block(self, block: Block, x: Tensor, grid: tuple[int, int]) -> tuple[Tokens, Tensor | None]:
        assert self.method.attention is not None  # or else it has `read`
        q, k, v = block.qkv(block.normed(x))
        mixed = block.scaled(block.project(self.method.attention(q, k, v, grid)))  # [B, N, W]
        x = x + mixed if self.method.residual else mixed
        if self.method.mlp:
            x = block.feed(x)
        # As published, keys pass the output projection like values do.
        return Tokens(x[:, 1:], grid, x[:, :1]), block.project(k)[:, 1:] if self.keys else None


_NO_OVERHANG = (0, 0, 0, 0)


def _tapped(guide: Guide | None, blocks: int, replaced: int) -> int | None:
    """The block that a guide looks into, counted from the first.

    Raises:
        ModelError: the tower has no such block in front of those that the method replaces.
    """
    if guide is None or guide.inner is None:
        return None
    index = guide.inner + (blocks if guide.inner < 0 else 0)
    if not 0 <= index < blocks - replaced:
        raise ModelError(
            f"the guide looks into block {guide.inner}, and only {blocks - replaced} of {blocks} are left to look into",
            hint="choose another --guide, or the model that it was trained with",
        )
    return index


class DenseResNet:
    """Dense reading of `open_clip.modified_resnet.ModifiedResNet`: its attention pooling taken pointwise.

    The position embedding of the pooling is left out, as published. The grid has output stride 32.

    Args:
        visual: the tower, in eval mode.
        method: its attention mixes the positions (for MaskCLIP: not at all).
        keys: hand out keys where the method has them.
        guide: the other network, for a method that asks for one.

    Raises:
        ModelError: the method, or its guide, reads transformer blocks.
    """

    patch = 32

    def __init__(self, visual: Any, method: Method, *, keys: bool = True, guide: Guide | None = None) -> None:
        if method.attention is None or (guide is not None and guide.inner is not None):
            raise ModelError(
                "this method reads the blocks of a transformer, and a ResNet has none",
                hint="choose another --method, or a model such as ViT-B-16",
            )
        self.visual, self.method, self.mix, self.guide = visual, method, method.attention, guide
        self.keys = keys and method.keys

    def __call__(self, image: Tensor) -> DenseFeatures:
        """Normalised image [B, 3, H, W] -> features on the grid of the last stage, about (H / 32, W / 32)."""
        net = self.visual
        x = net.stem(image)
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = stage(x)  # [B, W, h, w]
        grid = (x.shape[2], x.shape[3])
        pool = net.attnpool
        positions = x.flatten(2).transpose(1, 2)  # [B, h*w, W]
        # The mean takes the place of the class token, so that methods meet the same layout as in a ViT.
        seq = torch.cat([positions.mean(dim=1, keepdim=True), positions], dim=1)  # [B, N, W]
        key = pool.k_proj(seq)
        q, k, v = (split_heads(part, pool.num_heads) for part in (pool.q_proj(seq), key, pool.v_proj(seq)))
        features = pool.c_proj(merge_heads(self.mix(q, k, v, grid)))  # [B, N, D]
        keys = _to_grid(key[:, 1:], grid) if self.keys else None
        maps = _to_grid(features[:, 1:], grid)
        if self.method.pool is not None and self.guide is not None:
            maps = self.method.pool(maps, self.guide(image))
        return DenseFeatures(maps, keys, x, features[:, 0])

    logits = staticmethod(cosine_logits)


def dense_reader(
    visual: nn.Module,
    method: Method,
    *,
    activation: str | None = None,
    ln_eps: float | None = None,
    keys: bool = True,
    guide: Guide | None = None,
    black: Tensor | None = None,
) -> DenseViT | DenseResNet:
    """The reader that fits the tower.

    Args:
        visual: the image tower, in eval mode.
        method: how its last block is read.
        activation, ln_eps: forced on a copy of the tower; None keeps the tower's own. A ResNet has neither.
        keys: hand out keys where the method has them.
        guide, black: see `DenseViT`.

    Raises:
        ModelError: no reader fits; the message says why.
    """
    if type(visual).__name__ == "ModifiedResNet":
        return DenseResNet(visual, method, keys=keys, guide=guide)
    if type(visual).__name__ == "VisionTransformer":
        return DenseViT(
            with_overrides(visual, activation, ln_eps), method, keys=keys, guide=guide, black=black
        )
    raise ModelError(
        f"cannot read this image tower densely: {unreadable(visual)}",
        hint="`clipseg models` shows which architectures can be read, for example ViT-B-16, ViT-L-14 or RN50",
    )


def unreadable(visual: nn.Module) -> str:
    """Why a tower cannot be read densely, as the end of a sentence; empty if it can."""
    kind = type(visual).__name__
    if kind == "ModifiedResNet":
        return ""
    if kind == "TimmModel":
        return "it is a timm tower, whose pooling this tool does not read yet"
    if kind != "VisionTransformer":
        return f"it is a {kind}, not one of open_clip's own VisionTransformer or ModifiedResNet"
    tower: Any = visual
    if tower.attn_pool is not None:
        return "it pools its tokens by attention (CoCa)"
    if type(tower.transformer.resblocks[-1]).__name__ != "ResidualAttentionBlock":
        return f"its blocks are of the kind {type(tower.transformer.resblocks[-1]).__name__}"
    return ""


def _to_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, h*w, D] -> [B, D, h, w]."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)


def with_overrides(visual: Any, activation: str | None, ln_eps: float | None) -> Any:
    """The tower itself, or a copy with another activation or LayerNorm eps."""
    if activation is None and ln_eps is None:
        return visual
    from open_clip.transformer import QuickGELU

    visual = copy.deepcopy(visual)
    for module in visual.modules():
        if ln_eps is not None and isinstance(module, nn.LayerNorm):
            module.eps = ln_eps
        if activation is not None and isinstance(getattr(module, "gelu", None), nn.Module):
            module.gelu = nn.GELU() if activation == "gelu" else QuickGELU()
    return visual
