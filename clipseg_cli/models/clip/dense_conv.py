"""Dense reading of towers that are no transformers: every position of the last map through the pooling by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ModelError
from clipseg_cli.models.clip.towers import patch_of
from clipseg_cli.models.weights.precision import computing_as_held
from clipseg_cli.ops.attention import merge_heads, split_heads, to_grid
from clipseg_cli.ops.levels import Depths
from clipseg_cli.ops.positions import resize_positions
from clipseg_cli.ops.similarity import cosine_logits
from clipseg_cli.types import DenseFeatures

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import Method, Reading


class DenseResNet:
    """Dense reading of `open_clip.modified_resnet.ModifiedResNet`: its attention pooling taken pointwise.

    The position embedding of the pooling is left out, as published. The grid has output stride 32.

    Args:
        visual: the tower, in eval mode.
        method: its attention mixes the positions (for MaskCLIP: not at all).
        how: what else is asked for.

    Raises:
        ModelError: the method, or its guide, reads transformer blocks.
    """

    patch = 32

    def __init__(self, visual: Any, method: Method, how: Reading) -> None:
        if method.attention is None or (how.guide is not None and how.guide.inner is not None):
            raise ModelError(
                "this method reads the blocks of a transformer, and a ResNet has none",
                hint="choose another --method, or a model such as ViT-B-16",
            )
        self.visual, self.method, self.mix, self.guide = visual, method, method.attention, how.guide
        self.keys, self.pooled, self.levels, self.values = how.keys, how.whole, how.levels, how.values

    def __call__(self, image: Tensor, regions: Tensor | None = None) -> DenseFeatures:
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
        keys = to_grid(key[:, 1:], grid) if self.keys else None
        maps = to_grid(features[:, 1:], grid)
        guide = None if self.guide is None else self.guide(image)
        if self.method.pool is not None and guide is not None:
            maps = self.method.pool(maps, guide)
        return DenseFeatures(
            maps,
            keys,
            x,
            features[:, 0],
            whole=self._embedding(seq, grid) if self.pooled else None,
            values=to_grid(merge_heads(v)[:, 1:], grid) if self.values else None,
            guide=guide,
            levels=Depths((x, maps)) if self.levels else None,
        )

    def _embedding(self, seq: Tensor, grid: tuple[int, int]) -> Tensor:
        """What the pooling was trained for: the mean asks all positions, with their position embedding."""
        pool = self.visual.attnpool
        seq = seq + resize_positions(pool.positional_embedding.detach(), grid, "shape").to(seq.dtype)
        projections = (pool.q_proj(seq[:, :1]), pool.k_proj(seq), pool.v_proj(seq))
        q, k, v = (split_heads(part, pool.num_heads) for part in projections)
        return pool.c_proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))[:, 0]  # type: ignore[no-any-return]

    logits = staticmethod(cosine_logits)


class DenseConv:
    """Dense reading of a convolutional tower of timm: ConvNeXt, or the FastViT of MobileCLIP.

    Args:
        visual: `open_clip.timm_model.TimmModel` around one of these.
        method: one that reads positions by themselves, since there is no attention to replace.
        how: what else is asked for; keys are refused, since it has none.

    Raises:
        ModelError: the method, its guide or the keys need a transformer.
    """

    def __init__(self, visual: Any, method: Method, how: Reading) -> None:
        if how.keys:
            raise ModelError(
                "a convolutional tower has no keys to smooth by", hint="leave out --key-smoothing"
            )
        if not method.pointwise or (how.guide is not None and how.guide.inner is not None):
            raise ModelError(
                "this method changes attention, and a convolutional tower has none",
                hint="choose --method maskclip, or a model such as ViT-B-16",
            )
        self.visual, self.trunk, self.method, self.guide = visual, visual.trunk, method, how.guide
        self.pooled, self.levels, self.values = how.whole, how.levels, how.values
        self.patch = patch_of(visual)

    def __call__(self, image: Tensor, regions: Tensor | None = None) -> DenseFeatures:
        """Normalised image [B, 3, H, W] -> features on the grid of the last stage."""
        x = self.trunk.forward_features(image)  # [B, W, h, w]
        features = to_grid(self._ending(x), (x.shape[2], x.shape[3]))
        guide = None if self.guide is None else self.guide(image)
        if self.method.pool is not None and guide is not None:
            features = self.method.pool(features, guide)
        return DenseFeatures(
            features,
            None,
            x,
            whole=self._mean(x) if self.pooled else None,
            values=x if self.values else None,
            guide=guide,
            levels=Depths((x, features)) if self.levels else None,
        )

    logits = staticmethod(cosine_logits)

    def whole(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> its embedding [B, D]: the mean position."""
        with computing_as_held(self.trunk):
            return self._mean(self.trunk.forward_features(image))

    def _mean(self, x: Tensor) -> Tensor:
        return self._ending(x.mean(dim=(2, 3), keepdim=True))[:, 0]

    def _ending(self, x: Tensor) -> Tensor:
        """[B, W, h, w] -> [B, h*w, D], position by position."""
        head = self.trunk.head
        x = head.norm(x) if hasattr(head, "norm") else x
        tokens = x.flatten(2).transpose(1, 2)
        tokens = head.pre_logits(tokens) if hasattr(head, "pre_logits") else tokens
        return self.visual.head(head.fc(tokens))  # type: ignore[no-any-return]
