"""GEM: a second path beside the last blocks, in which like attends to like (arXiv:2312.00878).

The ordinary path runs on unchanged. Beside it the second one gathers what self-self attention, ensembled over
queries, keys and values of the ordinary path, says of each patch in each block; no MLP acts on it.

Reference: WalBouss/GEM@5fa677c, gem/gem_utils.py, SelfSelfAttention and GEMResidualBlock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.types import Method, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import Block

DEPTH = 7
"""Blocks as the published code counts them: the last six are read."""


def read(
    blocks: Sequence[Block],
    x: Tensor,
    grid: tuple[int, int],
    guide: Tensor | None = None,
    *,
    iterations: int = 1,
    temperature: float | None = None,
) -> Tokens:
    """The second path, which begins as the first.

    Args:
        blocks: the last of the tower.
        x: [B, N, W] what goes into the first of them, class token first.
        grid: (h, w), in patches.
        guide: there is none.
        iterations: how often queries, keys and values are smoothed by themselves before they mix the values.
        temperature: of the softmax; None takes the mean length of the normed tokens of the image by sqrt(Dh).
    """
    del guide
    plain, path = x, x
    for block in blocks:
        normed = block.norm1(plain)
        q, k, v = block.qkv(normed)
        if temperature is None:
            sharpness = (
                normed.norm(dim=-1).mean(dim=1).view(-1, 1, 1, 1) * q.shape[-1] ** -0.5
            )  # [B, 1, 1, 1]
        else:
            sharpness = q.new_full((1, 1, 1, 1), temperature)
        mixed = torch.stack([self_self(z, v, sharpness, iterations) for z in (q, k, v)]).mean(dim=0)
        path = path + block.layer_scale(block.project(mixed))
        plain = block(plain)
    prefix = path.shape[1] - grid[0] * grid[1]
    return Tokens(path[:, prefix:], grid, path[:, :1] if prefix else None)


def self_self(z: Tensor, v: Tensor, sharpness: Tensor, iterations: int) -> Tensor:
    """Values mixed by the similarity of z to itself.

    Args:
        z, v: [B, Nh, N, Dh].
        sharpness: [B or 1, 1, 1, 1], factor on cosines before the softmax.
        iterations: how often z is smoothed by itself first.

    Returns:
        [B, Nh, N, Dh].
    """
    for _ in range(iterations):
        unit = F.normalize(z, dim=-1)
        z = F.scaled_dot_product_attention(unit * sharpness, unit, unit, scale=1.0)
    unit = F.normalize(z, dim=-1)
    return F.scaled_dot_product_attention(unit * sharpness, unit, v, scale=1.0)


METHOD = Method(
    None,
    read=read,
    blocks=DEPTH - 1,
    positions="antialias",
    ranges={"iterations": (0, 100), "temperature": (0.001, 10_000), "blocks": (1, 1000)},
    cost=1.5,
    summary="self-self attention on a path beside the last six blocks",
    paper="arXiv:2312.00878",
    reference="WalBouss/GEM@5fa677c",
)
