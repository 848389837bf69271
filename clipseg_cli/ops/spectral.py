"""Foreground without a network of its own: normalised cuts of an image's patches (TokenCut, arXiv:2202.11539).

As MaskCut (CutLER, arXiv:2301.11320) does, what was found is taken out and the rest is cut again. A cut does not say
which of its sides is the thing. Here a thing is a side that holds together and touches little of the border of the
image; where neither side is one, as at a horizon, both are ground, and each is cut further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = 1e-5
"""Weight of an edge between patches that are not alike; it keeps the graph in one piece."""

MOST_THINGS, MOST_CUTS = 3, 6
"""As many things as MaskCut takes; each cut costs the cube of its patches."""

WHOLE = 0.35
"""Cost of a cut from which a part is one thing: 0 separates what has nothing in common, 1 goes through the middle of
noise. Chosen on the training images of `samples/emoji-voc`: at 0.2 some things are not found, at 0.5 ground is."""

LEAST = 8
"""Parts of fewer patches are not cut."""

CORNERS, BORDER, COMPACT = 1, 0.3, 0.5
"""A thing touches no more corners of the image than this, and a smaller share of its border; and of the neighbours of
its patches at least this share belongs to it too."""


def similarity_graph(features: Tensor, threshold: float = 0.2) -> Tensor:
    """Patches joined where they are alike, and hardly elsewhere.

    Args:
        features: [W, h, w] of one image, of any length.
        threshold: cosine from which two patches count as alike.

    Returns:
        [h*w, h*w] of 1 and `FLOOR`. Not even a patch is joined to itself, or it would be cheap to cut out one that is
        like no other.
    """
    unit = F.normalize(features.flatten(1).float(), dim=0)  # [W, n]
    return torch.where(unit.mT @ unit > threshold, 1.0, FLOOR).fill_diagonal_(FLOOR)


def normalised_cut(graph: Tensor) -> tuple[Tensor, float]:
    """The second smallest generalised eigenvector of a graph, whose sign cuts it in two, and its eigenvalue.

    Args:
        graph: [n, n] weights of the edges.

    Returns:
        [n] of unit length, in float32, with an arbitrary sign; and what the cut costs, from 0.

    Source: YangtaoWANG95/TokenCut, object_discovery.py, ncut (arXiv:2202.11539, equation 4).
    """
    graph = graph.double()
    scale = graph.sum(dim=1).rsqrt()
    laplacian = torch.eye(len(graph), device=graph.device) - scale[:, None] * graph * scale
    # The generalised problem (D - E) x = l D x is the ordinary one of the symmetric Laplacian, x = D^-1/2 y.
    values, vectors = torch.linalg.eigh(laplacian)
    return F.normalize(scale * vectors[:, 1], dim=0).float(), float(values[1])


def border_of_thing(side: Tensor) -> float | None:
    """The share of the border of the image that a side of a cut touches, or None where the side is no thing.

    Args:
        side: [h, w] bool.
    """
    corners = side[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
    border = torch.cat([side[0], side[-1], side[1:-1, 0], side[1:-1, -1]]).float().mean()
    beside = (side[1:] & side[:-1]).sum() + (side[:, 1:] & side[:, :-1]).sum()
    compact = beside / (2 * side.sum()).clamp(min=1)  # a patch has four neighbours; a pair is counted once
    return float(border) if corners <= CORNERS and border < BORDER and compact >= COMPACT else None


def foreground(features: Tensor, threshold: float = 0.2, sharpness: float = 4.0) -> Tensor:
    """How probably each patch belongs to a thing.

    Args:
        features: [W, h, w] of one image, of any length, their mean taken off.
        threshold: cosine from which two patches count as alike.
        sharpness: of the sigmoid, in standard deviations of the cut that found the thing.

    Returns:
        [h, w] in [0, 1]; 0.5 everywhere where no cut finds a thing.
    """
    graph = similarity_graph(features, threshold)
    grid = features.shape[1:]
    found = torch.zeros(len(graph), device=graph.device)
    parts, things = [torch.arange(len(graph), device=graph.device)], 0
    for _ in range(MOST_CUTS):
        if not parts or things == MOST_THINGS:
            break
        part = parts.pop(max(range(len(parts)), key=lambda i: len(parts[i])))  # the largest
        if len(part) < LEAST:
            break
        cut, cost = normalised_cut(graph[part][:, part])
        if cost > WHOLE:
            continue
        cut = cut - cut.mean()
        sides = []
        for sign in (1, -1):
            patches = part[sign * cut > 0]
            mask = torch.zeros_like(found, dtype=torch.bool).index_fill(0, patches, True)
            sides.append((border_of_thing(mask.view(grid)), len(patches), sign, patches))
        touching = [side for side in sides if side[0] is not None]
        if not touching:
            parts += [patches for *_, patches in sides]
            continue
        thing = min(touching, key=lambda side: side[:2])
        parts += [patches for *_, sign, patches in sides if sign != thing[2]]
        chance = (sharpness * thing[2] * cut / cut.std(correction=0)).sigmoid()
        found[part] = torch.maximum(found[part], chance)
        things += 1
    return (found if things else torch.full_like(found, 0.5)).view(grid)
