"""ProxyCLIP: the values of CLIP, mixed by what another network finds alike (arXiv:2408.04883).

Self-supervised networks such as DINO know which patches belong together, but no words; CLIP knows the words. The
attention of the last block is taken from the first, on its finer grid. Residual and MLP are dropped.

The published code exchanges height and width when it arranges the values, which only shows where the image is not
square; here they are as they should be.

Reference: mc-lan/ProxyCLIP@e7b767f, open_clip/transformer.py, VisionTransformer.custom_attn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

from clipseg_cli.errors import ModelError
from clipseg_cli.ops.correlation import proxy_attention
from clipseg_cli.types import Method, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import Block


def read(
    blocks: Sequence[Block],
    x: Tensor,
    grid: tuple[int, int],
    guide: Tensor | None,
    *,
    beta: float = 1.2,
    gamma: float = 3.0,
) -> Tokens:
    """Values of the patches on the grid of the guide, mixed by its similarities; the class token takes no part.

    Args:
        blocks: the last block.
        x: [B, N, W], class token first.
        grid: (h, w) of CLIP, in patches.
        guide: [B, Dg, hg, wg] features of the other network.
        beta, gamma: see `proxy_attention`.

    Raises:
        ModelError: there is no guide.
    """
    if guide is None:
        raise ModelError("ProxyCLIP needs the features of another network", hint="name one with --guide")
    (block,) = blocks
    _, _, v = block.qkv(block.norm1(x))  # [B, Nh, N, Dh]
    heads = v.shape[1]
    prefix = v.shape[2] - grid[0] * grid[1]
    maps = v[:, :, prefix:].mT.flatten(1, 2).unflatten(2, grid)  # [B, W, h, w]
    finer = (guide.shape[2], guide.shape[3])
    maps = F.interpolate(maps, finer, mode="bilinear", align_corners=False)
    values = maps.flatten(2).unflatten(1, (heads, -1)).mT  # [B, Nh, hg*wg, Dh]
    mixed = proxy_attention(guide, beta=beta, gamma=gamma)[:, None].to(values) @ values
    return Tokens(block.layer_scale(block.project(mixed)), finer)


METHOD = Method(
    None,
    read=read,
    guided=True,
    positions="scale",
    padding="around",
    ranges={"beta": (0, 100), "gamma": (0, 1000)},
    cost=5.8,
    summary="values mixed by the similarities of a self-supervised network",
    paper="arXiv:2408.04883",
    reference="mc-lan/ProxyCLIP@e7b767f",
)
