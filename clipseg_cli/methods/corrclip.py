"""CorrCLIP: attention inside regions, and one class token for each of them (arXiv:2411.10086).

Regions come from `--regions`, whatever makes them; which patches are alike inside them says another network, named with
`--guide` (published: the queries plus keys of DINO ViT-B/8), or else the tower itself.

In the published code the region with the smallest number counts as unsegmented, even where it is a real one. Here that
is number 0, which means no region, and there may be none of it.

Reference: zdk258/CorrCLIP@103bc18.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ModelError
from clipseg_cli.ops.attention import merge_heads, to_grid
from clipseg_cli.ops.region_attention import merge_alike, scoped_attention
from clipseg_cli.ops.regions import nearest_ids
from clipseg_cli.types import Method, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import Block

ALL_BLOCKS = 1000
"""The tokens of regions go through all of them."""

SPATIAL_BLOCKS = {12: 5, 24: 12, 32: 28}
"""Depth of the tower -> blocks whose mean is the spatial branch; any other depth leaves out four."""


def read(
    blocks: Sequence[Block],
    x: Tensor,
    grid: tuple[int, int],
    guide: Tensor | None,
    regions: Tensor,
    *,
    tau: float = 4.0,
    merge: bool = True,
    merge_distance: float = 0.2,
    spatial_blocks: int | None = None,
    weights: tuple[float, ...] = (1.0, 1.0, 0.5),
) -> Tokens:
    """Three readings of each position, to be added: of the last values, of values from before, of its region.

    Args:
        blocks: all of the tower.
        x: [B, N, W], class token first.
        grid: (h, w) of CLIP, in patches.
        guide: [B, Dg, hg, wg] features of another network, whose grid is that of the result; None takes the tower's.
        regions: [B, H, W] numbers of regions, 0 for none.
        tau: see `scoped_attention`.
        merge: regions that look alike are one (first version of the authors).
        merge_distance: see `merge_alike`.
        spatial_blocks: how many blocks before the last but one the second reading is the mean of; None suits the depth.
        weights: of the three.

    Raises:
        ModelError: the tower has no class token.
    """
    if x.shape[1] == grid[0] * grid[1]:
        raise ModelError(
            "CorrCLIP reads a class token for each region, and this tower has none",
            hint="choose another --method, or a model such as ViT-B-16",
        )
    inputs = [x]
    for block in blocks[:-1]:
        inputs.append(block(inputs[-1]))
    last, depth = blocks[-1], len(blocks)
    proxy = own_features(last, inputs[-1], grid) if guide is None else guide
    size = (proxy.shape[2], proxy.shape[3])
    unit = F.normalize(proxy.flatten(2), dim=1).mT.float()  # [B, n, Dg]
    fine = nearest_ids(regions, size).flatten(1)  # [B, n]
    if merge:
        fine = torch.stack([merge_alike(*pair, merge_distance) for pair in zip(unit, fine, strict=True)])
    attention = torch.stack([scoped_attention(*pair, tau) for pair in zip(unit, fine, strict=True)])
    count = SPATIAL_BLOCKS.get(depth, depth - 4) if spatial_blocks is None else spatial_blocks
    before = inputs[max(0, depth - 1 - max(1, count)) : max(1, depth - 1)]
    main, spatial = (
        _mixed(last, one, grid, size, attention) for one in (inputs[-1], torch.stack(before).mean(dim=0))
    )
    coarse = nearest_ids(fine.unflatten(1, size), grid)  # [B, h, w]
    place = torch.stack([one.unique(return_inverse=True)[1] for one in coarse])  # [B, h, w], counted through
    members = F.one_hot(place.flatten(1)).mT.bool()  # [B, R, h*w]
    tokens = region_tokens(blocks, inputs, members)  # [B, R, W]
    there = nearest_ids(place, size).flatten(1)[..., None].expand(-1, -1, tokens.shape[2])  # [B, n, W]
    semantic = tokens.gather(1, there)
    return Tokens(main, size, weight=weights[0], added=((spatial, weights[1]), (semantic, weights[2])))


def own_features(block: Block, x: Tensor, grid: tuple[int, int]) -> Tensor:
    """What the tower itself finds alike: queries plus keys of the last block, as of DINO, [B, W, h, w]."""
    q, k, _ = block.qkv(block.norm1(x))
    return to_grid(merge_heads(q + k)[:, -grid[0] * grid[1] :], grid)


def region_tokens(blocks: Sequence[Block], inputs: Sequence[Tensor], members: Tensor) -> Tensor:
    """Copies of the class token, each of which sees the real one and the patches of its region, and not itself.

    Args:
        blocks: all of the tower.
        inputs: [B, N, W] what goes into each of them; other tokens do not see those of regions.
        members: bool [B, R, h*w] the patches of each region; where there are none, a token sees the class token only.

    Returns:
        [B, R, W] behind the last block.
    """
    prefix = inputs[0].shape[1] - members.shape[2]
    seen = F.pad(members, (prefix, 0), value=True)[:, None]  # [B, 1, R, N]
    tokens = inputs[0][:, :1].expand(-1, members.shape[1], -1)  # [B, R, W]
    for block, x in zip(blocks, inputs, strict=True):
        _, k, v = block.qkv(block.norm1(x))
        q, _, _ = block.qkv(block.norm1(tokens), placed=False)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        tokens = block.mlp(tokens + block.layer_scale(block.project(mixed)))
    return tokens


def _mixed(
    block: Block, x: Tensor, grid: tuple[int, int], size: tuple[int, int], attention: Tensor
) -> Tensor:
    """Values of the patches on the grid of the result, mixed in the same way by all heads: [B, n, W]."""
    _, _, v = block.qkv(block.norm1(x))  # [B, Nh, N, Dh]
    maps = to_grid(merge_heads(v)[:, -grid[0] * grid[1] :], grid)
    values = F.interpolate(maps, size, mode="bilinear", align_corners=False) if size != grid else maps
    heads = values.flatten(2).unflatten(1, (v.shape[1], -1)).mT  # [B, Nh, n, Dh]
    return block.layer_scale(block.project(attention[:, None].to(heads) @ heads))


METHOD = Method(
    None,
    read_regions=read,
    blocks=ALL_BLOCKS,
    guided="optional",
    guide_reads="query+key",
    positions="scale",
    padding="around",
    ranges={
        "tau": (0, 1000),
        "merge": (0, 1),
        "merge_distance": (0, 2),
        "spatial_blocks": (1, 100),
        "weights": (-100, 100),
    },
    cost=5.0,
    summary="attention inside regions, and a class token for each",
    paper="arXiv:2411.10086",
    reference="zdk258/CorrCLIP@103bc18",
)
