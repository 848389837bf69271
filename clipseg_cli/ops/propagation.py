"""Label propagation over a graph of patches: what patches that look alike say of each other (LPOSS, arXiv:2503.19777).

Letters: N patches of all windows of an image, Q words, k neighbours, D the sums of the rows of the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.sparse import sparse_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from clipseg_cli.types import Tile

DENSE_NODES = 4096
"""Up to so many patches a graph is a plain matrix (64 MB); above, a sparse one."""

GRAPH_ENTRIES = 1 << 26
"""Entries that a sparse graph is made of (1 GB with their indices); larger images get fewer neighbours a patch."""

ROWS_BYTES = 128 << 20
"""Similarities that are held at once while neighbours are looked for."""


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    steps: int,
    tolerance: float = 0.0,
    start: Tensor | None = None,
    shared: bool = False,
    floor: float = 0.0,
) -> Tensor:
    """Solve A x = y for each word, by at most so many steps of conjugate gradients.

    Published propagations stop long before the solution is reached, so the number of steps is a part of them.

    Args:
        product: x -> A x, for all words at once.
        target: [Q, ...] y, one right side for each word.
        steps: at most.
        tolerance: a word is done once |residual| <= tolerance * |y|.
        start: x at the beginning; None is 0.
        shared: one step length for all words together.
        floor: added to denominators.

    Returns:
        [Q, ...].
    """
    axes = tuple(range(0 if shared else 1, target.ndim))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dim=axes, keepdim=True)

    x = torch.zeros_like(target) if start is None else start.clone()
    residual = target.clone() if start is None else target - product(x)
    direction = residual.clone()
    power = dot(residual, residual)
    enough = dot(target, target) * tolerance**2
    for _ in range(steps):
        going = power > enough if tolerance else torch.ones_like(power, dtype=torch.bool)
        if not going.any():
            break
        mixed = product(direction)
        length = _ratio(power, dot(direction, mixed) + floor) * going
        x.addcmul_(length, direction)
        residual.addcmul_(-length, mixed)
        before, power = power, torch.where(going, dot(residual, residual), power)
        direction = residual + _ratio(power, before + floor) * direction
    return x


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """A quotient, 0 where there is nothing to divide by."""
    return torch.where(below == 0, 0.0, above / torch.where(below == 0, 1.0, below))


def patch_places(windows: Sequence[Tile], grid: tuple[int, int]) -> Tensor:
    """Where the patches of all windows stand in the image, window by window and row by row.

    Args:
        windows: in pixels of the image that the network sees.
        grid: (h, w) of each.

    Returns:
        [P * h * w, 2] centres (row, column) in pixels; the same place in two windows is the same.
    """
    places = []
    for top, bottom, left, right in windows:
        rows = top + (torch.arange(grid[0]) + 0.5) * ((bottom - top) / grid[0])
        columns = left + (torch.arange(grid[1]) + 0.5) * ((right - left) / grid[1])
        places.append(torch.cartesian_prod(rows, columns))
    return torch.cat(places)


def nearest_graph(
    features: Tensor,
    places: Tensor,
    *,
    neighbours: int = 400,
    gamma: float = 3.0,
    sigma: float = 0.01,
    power: float = 1.0,
) -> Tensor:
    """Which patches take over what others say: similar ones, the more the nearer they lie.

    Memory is 16 bytes for each patch and neighbour, and at most 1 GB: where there would be more than `GRAPH_ENTRIES`,
    each patch has fewer neighbours (with 400, from 168,000 patches on).

    Args:
        features: [N, C] unit vectors.
        places: [N, 2] centres of the patches in the image, in pixels.
        neighbours: patches that each one is joined to, itself included; at most N.
        gamma: exponent of similarities; negative ones are 0.
        sigma, power: similarities fade by exp(-sigma * distance^power).

    Returns:
        [N, N] D^-1/2 (W + W^T) D^-1/2 with an empty diagonal, dense or sparse; rows of isolated patches are empty.

    Source: vladan-stojnic/LPOSS@e489a74.
    """
    count = len(features)
    k = max(1, min(neighbours, count, GRAPH_ENTRIES // max(1, count)))
    rows = max(1, ROWS_BYTES // (4 * count))
    indices, weights = [], []
    for start in range(0, count, rows):
        similar, index = (features[start : start + rows] @ features.T).topk(k, dim=1)
        apart = (places[start : start + rows, None] - places[index]).norm(dim=2)
        weights.append(similar.clamp(min=0) ** gamma * torch.exp(-sigma * apart**power))
        indices.append(index.int())
    index, weight = torch.cat(indices), torch.cat(weights)  # [N, k]
    own = torch.arange(count, device=index.device)[:, None] == index
    weight = weight.masked_fill(own, 0)
    if count <= DENSE_NODES:
        graph = weight.new_zeros(count, count).scatter_(1, index.long(), weight)
        return _normalised_dense(graph + graph.T)
    return _normalised_sparse(index, weight)


def _normalised_dense(graph: Tensor) -> Tensor:
    inverse = _inverse_root(graph.sum(dim=1))
    return graph * inverse[:, None] * inverse


def _normalised_sparse(index: Tensor, weight: Tensor) -> Tensor:
    count = len(index)
    row = torch.arange(count, device=index.device).repeat_interleave(index.shape[1])
    column, value = index.flatten().long(), weight.flatten()
    total = weight.sum(dim=1).index_add(0, column, value)
    inverse = _inverse_root(total)
    value = value * inverse[row] * inverse[column]
    # Both directions of every edge; those that are there twice add up.
    both = torch.stack([torch.cat([row, column]), torch.cat([column, row])])
    return sparse_sum(both, torch.cat([value, value]), (count, count))


def _inverse_root(total: Tensor) -> Tensor:
    return torch.where(total > 0, total.clamp(min=1e-30).rsqrt(), 1.0)


def propagate(
    graph: Tensor, scores: Tensor, *, alpha: float = 0.95, steps: int = 10, tolerance: float = 1e-6
) -> Tensor:
    """Scores that flow along a graph: (I - alpha graph) x = y, by conjugate gradients.

    Args:
        graph: [N, N] of `nearest_graph`.
        scores: [N, Q] y.
        alpha: share that comes from the neighbours, below 1.
        steps, tolerance: see `conjugate_gradients`; ten steps, as published, do not reach the solution.

    Returns:
        [N, Q]; at the solution a score that is everywhere the same grows by up to 1 / (1 - alpha).
    """

    def product(x: Tensor) -> Tensor:  # [Q, N]
        return x - alpha * (graph @ x.T).T

    return conjugate_gradients(product, scores.T.contiguous(), steps=steps, tolerance=tolerance).T
