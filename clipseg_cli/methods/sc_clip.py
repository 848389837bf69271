"""SC-CLIP: CLIP calibrated by its own inner features (arXiv:2411.15869).

Three repairs, all from what CLIP has computed anyway. A few patches in front of the last block stand out from all
others and draw attention to themselves; they take over what their neighbours say. Features of a block in the middle say
which patches belong together: they gather the patches before the last block, and are a part of its attention. Features
of an early block gather what comes out. The sum of several blocks goes through the last block as well and is added, for
detail.

The blocks are those of a tower of twelve; in others they are taken at the same share of the depth. Each image of a
batch is calibrated by itself.

Reference: SuleBai/SC-CLIP@0417ba9, clip/model.py, VisionTransformer.forward and lof_pytorch. The published code finds
the row of an outlier by the number of rows, which repairs other patches where an image is not square; here it is found
by the number of columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.ops.attention import self_attention, to_grid
from clipseg_cli.ops.correlation import correlations, pool_by_correlation, proxy_attention
from clipseg_cli.types import Method, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import Block

BLOCKS = 12
"""Depth of the tower that the block numbers are about."""

EARLY, MIDDLE, DETAIL = 4, 9, (4, 10)
"""Blocks, counted from 1: those that gather behind and before the last block, and the first and last of those that are
summed for detail."""

ALIKE = 0.4
"""Cosines below it count nothing."""

CLS_SHARE = 0.3
"""How much of the class token is added to every patch."""

SHARPNESS, MARGIN = 3.0, 1.0
"""Of the attention to patches that a middle block finds alike: factor before its softmax, and multiple of the mean
similarity below which there is none."""

NEIGHBOURS, OUTLIERS = 30, 0.05
"""How many near patches the outlier factor looks at, and which share of the patches is repaired."""

ENTIRE = 1 << 20
"""More blocks than any tower has."""


def read(
    blocks: Sequence[Block],
    x: Tensor,
    grid: tuple[int, int],
    guide: Tensor | None = None,
    *,
    early: int = EARLY,
    middle: int = MIDDLE,
    alike: float = ALIKE,
    cls_share: float = CLS_SHARE,
    neighbours: int = NEIGHBOURS,
    odd_share: float = OUTLIERS,
    detail: tuple[int, ...] = DETAIL,
    sharpness: float = SHARPNESS,
    margin: float = MARGIN,
) -> Tokens:
    """The whole tower, with a calibrated last block.

    Args:
        blocks: all of the tower, two or more.
        x: [B, N, W] what goes into the first of them, class token first.
        grid: (h, w), in patches.
        guide: there is none.
        early, middle: blocks, counted from 1 in a tower of twelve, that gather behind and before the last block.
        alike: cosines below it count nothing.
        cls_share: how much of the class token is added to every patch.
        neighbours, odd_share: see `outliers`.
        detail: the first and the last block that are summed, counted from 1 in a tower of twelve.
        sharpness, margin: of the attention to patches that the middle block finds alike, `gamma` and `beta` of
            `proxy_attention`.
    """
    del guide
    behind = []
    for block in blocks[:-1]:
        x = block(x)
        behind.append(x)
    depth, prefix = len(blocks), x.shape[1] - grid[0] * grid[1]

    def patches(tokens: Tensor) -> Tensor:
        return to_grid(tokens[:, prefix:], grid)  # [B, W, h, w]

    def number(of_twelve: int) -> int:
        return min(max(round(of_twelve * depth / BLOCKS), 1), depth - 1) - 1

    odd = outliers(patches(x), neighbours, odd_share)
    inner = mended(patches(behind[number(middle)]), odd)
    near = proxy_attention(inner, beta=margin, gamma=sharpness)  # [B, n, n]
    gathered = pool_by_correlation(mended(patches(x), odd), correlations(inner, alike), grid)
    summed = sorted({number(i) for i in range(min(detail), max(detail) + 1)})
    several = torch.stack([behind[i] for i in summed]).sum(dim=0)  # [B, N, W]
    late = correlations(patches(behind[number(early)]), alike)
    found = x.new_zeros(())
    for tokens in (torch.cat([x[:, :prefix], gathered.flatten(2).mT], dim=1), several):
        mixed = last_block(blocks[-1], tokens, near, prefix, cls_share)
        found = found + pool_by_correlation(to_grid(mixed, grid), late, grid)
    return Tokens(found.flatten(2).mT, grid)


def last_block(
    block: Block, tokens: Tensor, near: Tensor, prefix: int, cls_share: float = CLS_SHARE
) -> Tensor:
    """Attention to patches with similar keys and to those that a middle block finds alike, half and half; no residual.

    Args:
        block: the last of the tower.
        tokens: [B, N, W], class token first; patches attend to patches alone.
        near: [B, n, n], rows sum to 1.
        prefix: N - n tokens in front of the patches.
        cls_share: how much of the class token is added to every patch.

    Returns:
        [B, n, W], with a share of the class token where there is one.
    """
    _, k, v = (z[:, :, prefix:] for z in block.qkv(block.norm1(tokens)))  # [B, Nh, n, Dh]
    mixed = (near[:, None].to(v) @ v + self_attention(k, v)) / 2
    out = block.layer_scale(block.project(mixed))
    return out + cls_share * tokens[:, :1] if prefix else out


def outliers(features: Tensor, neighbours: int = NEIGHBOURS, odd_share: float = OUTLIERS) -> Tensor:
    """Patches that lie far from their nearest ones, by the measure of these: the local outlier factor.

    As published, distances are squared, and the reach of a patch is the distance of the farthest of its nearest ones.

    Args:
        features: [B, W, h, w].
        neighbours: how many near patches the factor looks at.
        odd_share: which share of the patches is found to be odd.

    Returns:
        [B, h, w] bool; about `odd_share` of the patches.
    """
    factor = outlier_factors(features, neighbours)
    odd = factor > factor.quantile(1 - odd_share, dim=1, keepdim=True)
    return odd.view(-1, *features.shape[2:])


def outlier_factors(features: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """The local outlier factor of each patch: how much denser its nearest ones lie than it does itself.

    Args:
        features: [B, W, h, w].
        neighbours: how many near patches the factor looks at; fewer in a small image.

    Returns:
        [B, h*w]; about 1 for what is no outlier, and 1 where there is one patch only.
    """
    flat = features.flatten(2).mT.float()  # [B, n, W]
    count = min(neighbours, flat.shape[1] - 1)
    if count < 1:
        return torch.ones_like(flat[..., 0])
    distances = torch.cdist(flat, flat).square()
    nearest, index = distances.topk(count + 1, dim=-1, largest=False)  # the patch itself comes first
    density = count / nearest[..., -1].clamp(min=1e-6)  # [B, n]
    of_nearest = density[:, None].expand_as(distances).gather(2, index[..., 1:])  # [B, n, count]
    return (of_nearest / density[..., None]).mean(dim=-1)


def mended(features: Tensor, odd: Tensor) -> Tensor:
    """Outliers as the mean of those of their eight neighbours that are none; without such neighbours as they are.

    Args:
        features: [B, W, h, w].
        odd: [B, h, w] bool.

    Returns:
        [B, W, h, w].
    """
    sound = (~odd)[:, None].to(features)  # [B, 1, h, w]
    around = F.avg_pool2d(sound, 3, 1, 1) * 9  # an outlier itself counts nothing
    mean = F.avg_pool2d(features * sound, 3, 1, 1) * 9 / around.clamp(min=1)
    return torch.where(odd[:, None] & (around > 0.5), mean, features)


METHOD = Method(
    None,
    read=read,
    blocks=ENTIRE,
    positions="scale",
    padding="drop",
    ranges={
        "early": (1, BLOCKS - 1),
        "middle": (1, BLOCKS - 1),
        "alike": (-1, 1),
        "cls_share": (0, 10),
        "neighbours": (1, 10_000),
        "odd_share": (0, 1),
        "detail": (1, BLOCKS - 1),
        "sharpness": (0, 1000),
        "margin": (-10, 10),
    },
    cost=1.1,
    summary="outliers repaired, patches gathered and attended to by CLIP's own inner features",
    paper="arXiv:2411.15869",
    reference="SuleBai/SC-CLIP@0417ba9",
)
