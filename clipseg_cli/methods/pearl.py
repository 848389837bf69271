"""PEARL: keys are rotated towards the queries before they are compared (Procrustes attention, arXiv:2603.21528).

Trained attention compares queries and keys that lie in different directions. The rotation that brings them together is
the polar factor of their covariance; tokens count by the length of their queries, the class token not at all. Keys
alone are added with a small weight. Its second half, the propagation, is `--propagate pearl`, which fits any method.

The published five iterations do not quite reach the polar factor; the variant `pearl:svd` does. `pearl:block` keeps the
residual and the MLP.

Covariance, rotation and scores are computed in float32, whatever the precision of the tower, as published.

Reference: PGSmall/PEARL@c26062b.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from clipseg_cli.errors import ShapeError
from clipseg_cli.types import Method

if TYPE_CHECKING:
    from torch import Tensor

ALPHA, ITERATIONS = 0.08, 5
"""The published weight of keys alone is 0.3 on ADE20K and Cityscapes."""

LEAST = 1e-6


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: tuple[int, int],
    *,
    alpha_kk: float = ALPHA,
    iterations: int = ITERATIONS,
) -> Tensor:
    """softmax((q (k R)^T + alpha_kk kc kc^T) / sqrt(Dh)) v with the rotation R of `polar_factor`; kc are centred keys.

    Args:
        q, k, v: [B, Nh, N, Dh], class token first.
        grid: (h, w), in patches.
        alpha_kk: weight of keys alone.
        iterations: of the polar factor.

    Returns:
        [B, Nh, N, Dh].

    Raises:
        ShapeError: the token count does not fit the grid.
    """
    with torch.autocast(q.device.type, enabled=False):
        matrix, centred = covariance(q, k, grid)
        return _mixed(q, k, v, polar_factor(matrix, iterations), centred, alpha_kk)


def exact_attention(
    q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], *, alpha_kk: float = ALPHA
) -> Tensor:
    """The same with the polar factor by a singular value decomposition."""
    with torch.autocast(q.device.type, enabled=False):
        matrix, centred = covariance(q, k, grid)
        u, _, vh = torch.linalg.svd(matrix)
        return _mixed(q, k, v, u @ vh, centred, alpha_kk)


def covariance(q: Tensor, k: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Covariance of keys with queries [B, Nh, Dh, Dh], and centred keys [B, Nh, N, Dh], in float32."""
    q, k = q.float(), k.float()
    prefix = q.shape[-2] - grid[0] * grid[1]
    if prefix < 0:
        raise ShapeError(f"expected {grid[0]}*{grid[1]} tokens or more, got {q.shape[-2]}")
    weight = q.norm(dim=-1, keepdim=True)  # [B, Nh, N, 1]
    weight = torch.cat([torch.zeros_like(weight[:, :, :prefix]), weight[:, :, prefix:]], dim=2)
    weight = weight / (weight.sum(dim=2, keepdim=True) + LEAST)
    queries, keys = (z - (weight * z).sum(dim=2, keepdim=True) for z in (q, k))
    return keys.mT @ queries, keys


def polar_factor(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The rotation nearest to a matrix [..., n, n], by so many Newton-Schulz iterations on its square."""
    square = matrix.mT @ matrix
    size = square.norm(dim=(-2, -1), keepdim=True).clamp(min=LEAST)
    identity = torch.eye(matrix.shape[-1], device=matrix.device)
    y, z = square / size + LEAST * identity, identity.expand_as(square)
    for _ in range(iterations):
        step = (3 * identity - z @ y) / 2
        y, z = y @ step, step @ z
    rotation: Tensor = matrix @ z / size.sqrt()
    return rotation


def _mixed(q: Tensor, k: Tensor, v: Tensor, rotation: Tensor, centred: Tensor, alpha_kk: float) -> Tensor:
    logits = q.float() @ (k.float() @ rotation).mT
    if alpha_kk:
        logits = logits + alpha_kk * (centred @ centred.mT)
    mixed: Tensor = (logits * q.shape[-1] ** -0.5).softmax(dim=-1).to(v) @ v
    return mixed


METHOD = Method(
    attention,
    residual=False,
    mlp=False,
    positions="scale",
    padding="drop",
    ranges={"alpha_kk": (0, 100), "iterations": (1, 100)},
    summary="keys rotated towards queries before they are compared, no residual, no MLP",
    paper="arXiv:2603.21528",
    reference="PGSmall/PEARL@c26062b",
)

VARIANTS = {
    "svd": dataclasses.replace(METHOD, attention=exact_attention),
    "block": dataclasses.replace(METHOD, residual=True, mlp=True),
}
