"""Text-aware Laplacian propagation over a coarse grid of the image (PEARL, arXiv:2603.21528). Q words, gh x gw cells.

Each cell is some pixels; words that are sure of a cell hold it, and scores flow over what has no edge in the image. In
the published code an index that is used twice leaves only the diagonal of the similarity of words, so that words do not
support each other, and it is done like that here.

Reference: PGSmall/PEARL@c26062b.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.propagation import conjugate_gradients

if TYPE_CHECKING:
    from torch import Tensor

EDGE = 1e-6
LUMA = (0.299, 0.587, 0.114)
LEAST = 0.05
"""Probability below which no cell counts as less sure."""


def cell_size(size: tuple[int, int], grid: int) -> tuple[int, int]:
    """Pixels of a cell (rows, columns) so that there are about `grid` along each side of (H, W)."""
    return max(1, round(size[0] / grid)), max(1, round(size[1] / grid))


def mean_matrix(side: int, cell: int, device: torch.device) -> Tensor:
    """[side // cell, side] that averages cells of so many pixels along one axis; a remainder is left out."""
    cells = side // cell
    matrix = torch.zeros(cells, side, device=device)
    rows = torch.arange(cells * cell, device=device)
    matrix[rows // cell, rows] = 1 / cell
    return matrix


def word_weights(text_embeds: Tensor, *, tau: float = 0.5, boost: float = 10.0) -> Tensor:
    """How much each word's agreement counts: [Q, D] unit vectors -> [Q]."""
    similar = (text_embeds @ text_embeds.T / tau).softmax(dim=1).diagonal()
    return (similar + boost) / (1 + boost + EDGE)


def text_laplacian(
    logits: Tensor,
    image: Tensor,
    text_embeds: Tensor,
    *,
    steps: int = 25,
    tau: float = 0.5,
    boost: float = 10.0,
    sharpness: float = 5.0,
    smoothness: float = 1.0,
) -> Tensor:
    """Solve (C + L) x = C y by conjugate gradients from x = y; C is how sure cells are, L the Laplacian of the image.

    A map that is everywhere the same stays as it is. The system is not solved after the published number of steps, so
    this number is a part of the method.

    Args:
        logits: [Q, gh, gw] cosines, without a scale.
        image: [3, gh, gw] normalised.
        text_embeds: [Q, D] unit vectors of the words.
        steps: of conjugate gradients, one length for all words together.
        tau, boost: see `word_weights`.
        sharpness: of edges: exp(-sharpness * difference of grey / its mean).
        smoothness: factor on L.

    Returns:
        [Q, gh, gw].
    """
    prob = logits.softmax(dim=0)
    weight = word_weights(text_embeds.float(), tau=tau, boost=boost)[:, None, None].to(prob)
    grey = (image * image.new_tensor(LUMA)[:, None, None]).sum(dim=0)
    agree = (weight * prob.square()).sum(dim=0).clamp(0, 1)
    sure = prob.amax(dim=0).clamp(min=LEAST).square() * (1 + agree)  # [gh, gw]

    def edges(axis: int) -> Tensor:
        step = grey.diff(dim=axis).abs()
        step = step / (step.mean() + EDGE) if step.numel() else step
        first, second = (prob.narrow(axis + 1, i, prob.shape[axis + 1] - 1) for i in (0, 1))
        alike = (weight * first * second).sum(dim=0).clamp(0, 1)
        return smoothness * (torch.exp(-sharpness * step) * (1 + alike)).clamp(0, 1)

    down, across = edges(0), edges(1)  # [gh - 1, gw], [gh, gw - 1]

    def product(x: Tensor) -> Tensor:
        found = sure * x
        flow = down * x.diff(dim=1)
        found[:, :-1] -= flow
        found[:, 1:] += flow
        flow = across * x.diff(dim=2)
        found[..., :-1] -= flow
        found[..., 1:] += flow
        return found

    return conjugate_gradients(product, sure * logits, steps=steps, start=logits, shared=True, floor=1e-12)
