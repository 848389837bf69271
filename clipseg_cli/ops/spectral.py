"""Foreground without a network of its own: the normalised cut of a picture's patches (TokenCut, arXiv:2202.11539)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = 1e-5
"""Weight of an edge between patches that are not alike; it keeps the graph in one piece."""


def fiedler_vector(features: Tensor, threshold: float = 0.2) -> Tensor:
    """The second smallest generalised eigenvector of the patch graph: its sign cuts the picture in two.

    Args:
        features: [W, h, w] of one picture, of any length.
        threshold: cosine from which two patches count as alike.

    Returns:
        [h, w], unit length, in float32.

    Source: YangtaoWANG95/TokenCut, object_discovery.py, ncut (arXiv:2202.11539, equation 4).
    """
    unit = F.normalize(features.flatten(1).float(), dim=0)  # [W, n]
    alike = torch.where(unit.mT @ unit > threshold, 1.0, FLOOR)
    degree = alike.sum(dim=1)
    scale = degree.rsqrt()
    laplacian = torch.eye(len(degree), device=degree.device) - scale[:, None] * alike * scale
    # The generalised problem (D - E) x = l D x is the ordinary one of the symmetric Laplacian, x = D^-1/2 y.
    _, vectors = torch.linalg.eigh(laplacian.double())
    cut = scale * vectors[:, 1].float()
    return F.normalize(cut, dim=0).view(features.shape[1:])


def foreground(cut: Tensor, sharpness: float = 4.0) -> Tensor:
    """How probably each patch belongs to the object: the side of the cut with the strongest patch, and not the border.

    The cut does not say which side is the object. TokenCut takes that of the largest absolute value; where that side
    holds more than half of the border of the picture it is the ground on which the object stands, and the other one is
    taken.

    Args:
        cut: [h, w] of `fiedler_vector`.
        sharpness: of the sigmoid, in standard deviations of the cut.

    Returns:
        [h, w] in [0, 1]; 0.5 where the picture cannot be cut.
    """
    centred = cut - cut.mean()
    spread = centred.std(correction=0)
    if spread < 1e-6:
        return torch.full_like(cut, 0.5)
    side = torch.sign(cut.flatten()[cut.abs().argmax()] - cut.mean())
    border = torch.cat([centred[0], centred[-1], centred[:, 0], centred[:, -1]])
    if ((border * side) > 0).float().mean() > 0.5:
        side = -side
    return (sharpness * side * centred / spread).sigmoid()
