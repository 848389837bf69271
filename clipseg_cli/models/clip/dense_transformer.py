"""Reading a frozen CLIP tower densely: [B, 3, H, W] -> one feature for each patch.

All blocks stay as open_clip built them; only the last one (for some methods: the last few) is recomputed around the
method. Towers without such blocks are read in `dense_conv`.

Dense readings drop the class token and the pooling, so `pool_type` and `final_ln_after_pool` make no difference:
the last LayerNorm acts on single tokens either way.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import nn

from clipseg_cli.errors import ModelError
from clipseg_cli.models.clip.compiled import WITHOUT, CompiledBlock
from clipseg_cli.models.clip.dense_conv import DenseConv, DenseResNet
from clipseg_cli.models.clip.towers import is_convolutional, tower_of, unreadable
from clipseg_cli.models.clip.vit import QuickGELU
from clipseg_cli.models.weights.precision import computing_as_held
from clipseg_cli.ops.attention import merge_heads, to_grid
from clipseg_cli.ops.levels import Depths, spread
from clipseg_cli.ops.reduce import upsample
from clipseg_cli.ops.similarity import cosine_logits
from clipseg_cli.types import DenseFeatures, Reading, Scene, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.models.clip.towers import Tower
    from clipseg_cli.types import Block, Guide, Method


AS_TRAINED = Reading()


class DenseTransformer:
    """Dense reading of a transformer.

    Args:
        tower: how it begins and ends, and its blocks.
        method: what replaces the attention of the last block.
        how: what else is asked for.

    Raises:
        ModelError: the guide looks into a block that the method replaces, or the method lacks the words.
    """

    def __init__(self, tower: Tower, method: Method, how: Reading = AS_TRAINED) -> None:
        self.tower, self.method = tower, method
        self.guide, self.black, self.keys, self.pooled = how.guide, how.black, how.keys, how.whole
        self.values, self.attention, self.text_embeds = how.values, how.attention, how.text_embeds
        self.compiled = how.compiled
        if method.read_twice is not None and how.text_embeds is None:
            raise ModelError(
                "this method reads with the words in sight, and there are none",
                hint="choose another --method",
            )
        self.depths = spread(tower.depth) if how.levels else ()
        self.tap = _tapped(how.guide, tower.depth, method.blocks)
        self.patch = tower.patch

    def __call__(self, image: Tensor, regions: Tensor | None = None) -> DenseFeatures:
        """Normalised image [B, 3, H, W] -> features on the grid (ceil(H / patch), ceil(W / patch)).

        What happens to sides that are no multiple of the patch is the method's (`Method.padding`); what is added to
        them is a region of its own.
        """
        given = image
        image, padding = self._fit(image)
        grid = (image.shape[2] // self.patch, image.shape[3] // self.patch)
        prefix = self.tower.prefix
        x = self.tower.embed(image, grid, self.method.positions)
        blocks = self._blocks(grid)
        behind = max(0, len(blocks) - self.method.blocks)
        attended = _Attended(prefix) if self.attention else None
        inner, inputs = None, []
        for i, block in enumerate(blocks[:behind]):
            if i == self.tap:
                inner = to_grid(block.pre_mlp(x)[:, prefix:], grid)
            if i in self.depths:
                inputs.append(to_grid(x[:, prefix:], grid))
            x = block(x) if attended is None else attended(block, x)
        if behind in self.depths:
            inputs.append(to_grid(x[:, prefix:], grid))
        seen = image if inner is None else inner
        guide = None if self.guide is None else self.guide(seen)
        if self.method.read_twice is not None:
            assert self.text_embeds is not None  # or else this was not made
            scene = Scene(given, self.text_embeds, lambda patches: self.tower.head(patches)[1])
            found = self.method.read_twice(blocks[behind:], x, grid, scene)
        elif self.method.read_regions is not None:
            assert regions is not None  # or else nobody asked for its source
            own = _fit_regions(regions, (image.shape[2], image.shape[3]), padding)
            found = self.method.read_regions(blocks[behind:], x, grid, guide, own)
        elif self.method.read is not None:
            found = self.method.read(blocks[behind:], x, grid, guide)
        else:
            found = self._last_block(blocks[-1], x, grid)
        tokens, projected = self._ended(found)  # [B, h*w, W], [B, h*w, D]
        features = to_grid(projected, found.grid)
        if self.method.pool is not None and guide is not None:
            features = self.method.pool(features, guide)
        keys, values, whole = self._aside(blocks[behind:], x, grid, attended)
        return DenseFeatures(
            features,
            None if keys is None else upsample(keys, (features.shape[2], features.shape[3])),
            to_grid(tokens, found.grid),
            None if found.cls is None else self.tower.head(found.cls)[1][:, 0],
            padding,
            None if self.guide is None else self.guide.objectness(seen),
            whole,
            Depths((*inputs, to_grid(tokens, found.grid), features)) if self.depths else None,
            values,
            guide,
            None if attended is None else attended.mean(),
        )

    logits = staticmethod(cosine_logits)

    def _blocks(self, grid: tuple[int, int]) -> Sequence[Block]:
        blocks = self.tower.blocks(grid)
        return [CompiledBlock(block) for block in blocks] if self.compiled else blocks

    def _ended(self, found: Tokens) -> tuple[Tensor, Tensor]:
        """Patches behind the last norm, and in the space of the words; with other readings of them added."""
        tokens, projected = self.tower.head(found.patches)
        if found.added:
            tokens, projected = found.weight * tokens, found.weight * projected
        for patches, weight in found.added:
            more = self.tower.head(patches)
            tokens, projected = tokens + weight * more[0], projected + weight * more[1]
        return tokens, projected

    def whole(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] of whole patches -> its embedding [B, D], as open_clip's own tower gives it."""
        grid = (image.shape[2] // self.patch, image.shape[3] // self.patch)
        with computing_as_held(self.tower.visual):
            x = self.tower.embed(image, grid, self.method.positions)
            for block in self.tower.blocks(grid):
                x = _behind(block, x, *block.qkv(block.norm1(x)))
            return self.tower.pooled(x)

    def _aside(
        self, blocks: Sequence[Block], x: Tensor, grid: tuple[int, int], attended: _Attended | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """What the replaced blocks say as they were trained: keys and values [B, W, h, w], the embedding [B, D].

        Attention in all of them but the last joins what `attended` has.
        """
        if not (self.keys or self.pooled or self.values or attended):
            return None, None, None
        for block in blocks[:-1]:
            x = block(x) if attended is None else attended(block, x)
        last, keys, values, prefix = blocks[-1], None, None, self.tower.prefix
        if self.keys or self.values:
            _, k, v = last.qkv(last.norm1(x))
            if self.keys:  # as published, keys pass the output projection like values do
                keys = to_grid(last.project(k)[:, prefix:], grid)
            if self.values:
                values = to_grid(merge_heads(v)[:, prefix:], grid)
        return keys, values, self.tower.pooled(last(x)) if self.pooled else None

    def _fit(self, image: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
        """Whole patches, and by how many pixels the result is to be cut: (top, bottom, left, right)."""
        down, across = -image.shape[2] % self.patch, -image.shape[3] % self.patch
        if self.method.padding == "around":
            top, left = down // 2, across // 2
            padding = (top, down - top, left, across - left)
            return F.pad(image, (left, across - left, top, down - top)), padding
        if self.method.padding == "drop" and min(image.shape[2:]) >= self.patch:
            height, width = (side // self.patch * self.patch for side in image.shape[2:])
            return image[..., :height, :width], _NO_PADDING
        padded = F.pad(image, (0, across, 0, down))
        if self.method.padding == "black" and self.black is not None:
            color = self.black.to(image).view(3, 1, 1)
            padded[..., image.shape[2] :, :] = color
            padded[..., image.shape[3] :] = color
        return padded, _NO_PADDING

    def _last_block(self, block: Block, x: Tensor, grid: tuple[int, int]) -> Tokens:
        assert self.method.attention is not None  # or else it has `read`
        prefix = self.tower.prefix
        q, k, v = block.qkv(block.norm1(x))
        mixed = block.layer_scale(block.project(self.method.attention(q, k, v, grid)))  # [B, N, W]
        x = x + mixed if self.method.residual else mixed
        if self.method.mlp:
            x = block.mlp(x)
        return Tokens(x[:, prefix:], grid, x[:, :1] if prefix else None)


_NO_PADDING = (0, 0, 0, 0)


class _Attended:
    """What patches attend to, in the mean of the blocks that tokens went through.

    Args:
        prefix: tokens in front of the patches, which take part in the softmax and are cut off.
    """

    def __init__(self, prefix: int) -> None:
        self.prefix, self.blocks = prefix, 0
        self.total: Tensor | None = None

    def __call__(self, block: Block, x: Tensor) -> Tensor:
        """Tokens [B, N, W] in front of a block -> behind it, as it was trained."""
        q, k, v = block.qkv(block.norm1(x))
        weights = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(dim=-1)[:, :, self.prefix :, self.prefix :]
        self.total = weights if self.total is None else self.total.add_(weights)
        self.blocks += 1
        return _behind(block, x, q, k, v)

    def mean(self) -> Tensor:
        """[B, Nh, n, n].

        Raises:
            ModelError: there was no block.
        """
        if self.total is None:
            raise ModelError("a tower of one block has no attention in front of the last")
        return self.total / self.blocks


def _behind(block: Block, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Tokens behind a block as it was trained, from those in front of it and what it made of them for its attention."""
    return block.mlp(x + block.layer_scale(block.project(F.scaled_dot_product_attention(q, k, v))))


def _fit_regions(regions: Tensor, size: tuple[int, int], padding: tuple[int, int, int, int]) -> Tensor:
    """Numbers [B, H, W] of the regions of what the tower sees; what was added to the image is a region of its own."""
    top, left = padding[0], padding[2]
    below, behind = size[0] - regions.shape[1] - top, size[1] - regions.shape[2] - left
    return F.pad(regions, (left, behind, top, below), value=int(regions.max()) + 1)


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


def dense_reader(
    visual: nn.Module, method: Method, how: Reading = AS_TRAINED
) -> DenseTransformer | DenseResNet | DenseConv:
    """The reader that fits an image tower in eval mode.

    Raises:
        ModelError: no reader fits; the message says why.
    """
    reason = unreadable(visual)
    if reason:
        raise ModelError(
            f"cannot read this image tower densely: {reason}",
            hint="`clipseg models` shows which architectures can be read, for example ViT-B-16, ViT-L-14 or RN50",
        )
    without_blocks = type(visual).__name__ == "ModifiedResNet" or is_convolutional(visual)
    if how.attention and without_blocks:
        raise ModelError(
            "this step looks at attention between patches, and this tower has no blocks with it",
            hint="leave out --presence freecp, or choose a model such as ViT-B-16",
        )
    if how.compiled and without_blocks:
        raise ModelError("--compile is about blocks of a transformer, and this tower has none", hint=WITHOUT)
    if type(visual).__name__ == "ModifiedResNet":
        return DenseResNet(visual, method, how)
    visual = with_overrides(visual, how.activation, how.ln_eps)
    if is_convolutional(visual):
        return DenseConv(visual, method, how)
    return DenseTransformer(tower_of(visual), method, how)


def with_overrides(visual: Any, activation: str | None, ln_eps: float | None) -> Any:
    """The tower itself, or one with the same weights and another activation or LayerNorm eps."""
    if activation is None and ln_eps is None:
        return visual
    weights = (*visual.parameters(), *visual.buffers())
    visual = copy.deepcopy(visual, {id(one): one for one in weights})
    for module in visual.modules():
        if ln_eps is not None and isinstance(module, nn.LayerNorm):
            module.eps = ln_eps
        if activation is not None and isinstance(getattr(module, "gelu", None), nn.Module):
            module.gelu = nn.GELU() if activation == "gelu" else QuickGELU()
    return visual
