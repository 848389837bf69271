"""NACLIP: patches attend to similar keys and to their neighbours (arXiv:2404.08181).

Its ablations are variants: `naclip:kk` and so on leave the neighbours out, mix in other ways, or attend to the
neighbours alone; `naclip:block.*` keep the residual and the MLP, which the method drops.

Reference: sinahmr/NACLIP@0cac3a6, clip/model.py, custom_attn and gaussian_window.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ShapeError
from clipseg_cli.methods import sclip
from clipseg_cli.ops.attention import plain_attention, self_attention
from clipseg_cli.types import Method

if TYPE_CHECKING:
    from torch import Tensor

STD = 5.0
"""Width of the Gaussian, in patches."""


@functools.lru_cache(maxsize=1)
def neighbourhood(grid: tuple[int, int], std: float = STD, prefix: int = 1) -> Tensor:
    """How near patches are: exp(-distance^2 / (2 std^2)), and 0 for whatever concerns tokens in front of them.

    Only the last one is kept: that of a large image read as a whole takes hundreds of megabytes.

    Args:
        grid: (h, w), in patches.
        std: in patches.
        prefix: tokens in front of the patches: one for a class token.

    Returns:
        [N, N], N = prefix + h*w.
    """
    rows, columns = (torch.exp(-_distances(side).square() / (2 * std**2)) for side in grid)
    near = torch.einsum("ab,cd->acbd", rows, columns).reshape(grid[0] * grid[1], -1)
    return F.pad(near, (prefix, 0, prefix, 0))


def _distances(side: int) -> Tensor:
    place = torch.arange(side, dtype=torch.float32)
    return place[:, None] - place


def attention(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], *, std: float = STD) -> Tensor:
    """softmax(k k^T / sqrt(Dh) + G) v with the Gaussian G of `neighbourhood`.

    Args:
        q, k, v: [B, Nh, N, Dh], class token first.
        grid: (h, w), in patches.
        std: width of the Gaussian, in patches.

    Returns:
        [B, Nh, N, Dh].

    Raises:
        ShapeError: the token count does not fit the grid.
    """
    del q
    return self_attention(k, v, neighbourhood(grid, std, _prefix(k, grid)).to(k.device))


def keys_alone(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
    """Ablation without the neighbours: softmax(k k^T / sqrt(Dh)) v; arguments as for `attention`."""
    del q, grid
    return self_attention(k, v)


def neighbours_alone(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], *, std: float = STD) -> Tensor:
    """Ablation without similarity: softmax(m G) v; arguments as for `attention`.

    m is the mean of |q_i| |k_j| / sqrt(Dh) over heads and pairs of tokens of the image, so that the Gaussian weighs
    about as much as similarities would.
    """
    near = neighbourhood(grid, std, _prefix(k, grid)).to(q)
    lengths = (q.norm(dim=-1).mean(dim=-1) * k.norm(dim=-1).mean(dim=-1)).mean(dim=-1)  # [B]
    weight = (lengths * q.shape[-1] ** -0.5).view(-1, 1, 1, 1)
    mixed: Tensor = (weight * near).softmax(dim=-1) @ v
    return mixed


def _prefix(k: Tensor, grid: tuple[int, int]) -> int:
    """Tokens in front of the patches."""
    prefix = k.shape[-2] - grid[0] * grid[1]
    if prefix < 0:
        raise ShapeError(f"expected {grid[0]}*{grid[1]} tokens or more, got {k.shape[-2]}")
    return prefix


METHOD = Method(
    attention,
    residual=False,
    mlp=False,
    positions="scale",
    padding="drop",
    ranges={"std": (0.01, 10_000)},
    summary="key-key attention with a Gaussian towards near patches, no residual, no MLP",
    paper="arXiv:2404.08181",
    reference="sinahmr/NACLIP@0cac3a6",
)

_MIXTURES = {
    "naclip": attention,
    "kk": keys_alone,
    "csa": sclip.attention,
    "vanilla": plain_attention,
    "nonly": neighbours_alone,
}

VARIANTS = {
    **{
        name: dataclasses.replace(METHOD, attention=mix)
        for name, mix in _MIXTURES.items()
        if name not in ("naclip", "csa")
    },
    **{
        f"block.{name}": dataclasses.replace(METHOD, attention=mix, residual=True, mlp=True)
        for name, mix in _MIXTURES.items()
    },
}
