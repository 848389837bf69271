"""One vector for each region of an image, from a map of features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.sparse import sparse_product
from clipseg_cli.types import Tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    Padding = tuple[int, int, int, int]

SHORTEST = 1e-12
"""Length of a feature below which nothing is divided by it."""


NO_OVERHANG = (0, 0, 0, 0)


def region_means(features: Tensor, ids: Tensor, *, unit: bool, none: int | None = 0) -> tuple[Tensor, Tensor]:
    """Mean feature of each region, over its pixels.

    Args:
        features: [D, h, w]; bilinear at the pixels of the regions.
        ids: whole numbers [H, W].
        unit: each pixel counts with length 1; else with the length of its feature.
        none: this id is no region; None leaves none out.

    Returns:
        The ids [R], ascending, and the means [R, D], of any length.

    Source: zdk258/CorrCLIP@103bc18.
    """
    whole = Tile(0, ids.shape[0], 0, ids.shape[1])
    return windowed_means([(features, whole, NO_OVERHANG)], ids, unit=unit, none=none)


def windowed_means(
    parts: Sequence[tuple[Tensor, Tile, Padding]], ids: Tensor, *, unit: bool, none: int | None = 0
) -> tuple[Tensor, Tensor]:
    """The same where the features are those of overlapping windows: a pixel counts once, by the mean of its windows.

    Args:
        parts: features [D, h, w] of each window, where it lies in the id map, and by how many pixels the features reach
            over it (top, bottom, left, right). Together the windows cover the map.
        ids, unit, none: as for `region_means`; with `unit`, it is the features of each window that have length 1.
    """
    found, places = ids.unique(return_inverse=True)
    cover = torch.zeros(ids.shape, device=ids.device)
    for _, tile, _ in parts:
        cover[tile.top : tile.bottom, tile.left : tile.right] += 1
    sums = torch.zeros(len(found), len(parts[0][0]), device=ids.device)
    for features, tile, padding in parts:
        cut = (slice(tile.top, tile.bottom), slice(tile.left, tile.right))
        _add(sums, features, places[cut], 1 / cover[cut], padding, unit=unit)
    counts = torch.bincount(places.flatten(), minlength=len(found))
    means = sums / counts[:, None]
    kept = torch.ones_like(found, dtype=torch.bool) if none is None else found != none
    return found[kept], means[kept]


def _add(
    sums: Tensor, features: Tensor, places: Tensor, weight: Tensor, padding: Padding, *, unit: bool
) -> None:
    """Add the features [D, h, w] at the pixels [H, W] of a window to the sums [R, D] of their regions.

    A pixel is a weighted mean of four patches, so that regions need to know no more than how much of each patch they
    hold: D numbers a pixel are never made. How long a pixel's feature is follows from products of those four.
    """
    top, bottom, left, right = padding
    y0, y1, fy = _between(places.shape[0], top, bottom, features.shape[1], features.device)
    x0, x1, fx = _between(places.shape[1], left, right, features.shape[2], features.device)
    corners = [(y, x) for y in (y0, y1) for x in (x0, x1)]
    across = features.shape[2]
    patches = [y[:, None] * across + x for y, x in corners]  # 4 of [H, W]
    shares = [down[:, None] * over for down in (1 - fy, fy) for over in (1 - fx, fx)]
    flat = features.flatten(1).mT.float()  # [h*w, D]
    if unit:
        weight = weight / _lengths(flat, features.shape[1:], patches, shares)
    index = torch.stack([places.expand(4, -1, -1).flatten(), torch.stack(patches).flatten()])
    held = (torch.stack(shares) * weight).flatten()
    sums += sparse_product(index, held, (len(sums), len(flat)), flat)


def _lengths(
    flat: Tensor, grid: Sequence[int], patches: Sequence[Tensor], shares: Sequence[Tensor]
) -> Tensor:
    """[H, W] lengths of the features of pixels, at least that below which nothing is normalised."""
    height, width = grid
    own = flat.unflatten(0, (height, width))

    def products(down: int, over: int) -> Tensor:
        """Of each patch with the one so many rows below and columns to the right, 0 where there is none: [h*w]."""
        found = flat.new_zeros(height, width)
        one = own[: height - down, max(0, -over) : width - max(0, over)]
        other = own[down:, max(0, over) : width + min(0, over)]
        found[: height - down, max(0, -over) : width - max(0, over)] = (one * other).sum(dim=-1)
        return found.flatten()

    square, right, below = products(0, 0), products(0, 1), products(1, 0)
    falling, rising = products(1, 1), products(1, -1)
    p00, p01, p10, _ = patches
    w00, w01, w10, w11 = shares
    total = sum(w * w * square[p] for w, p in zip(shares, patches, strict=True))
    pairs = (
        (w00 * w01, right[p00]),
        (w10 * w11, right[p10]),
        (w00 * w10, below[p00]),
        (w01 * w11, below[p01]),
        (w00 * w11, falling[p00]),
        (w01 * w10, rising[p01]),
    )
    for share, product in pairs:
        total = total + 2 * share * product
    return torch.as_tensor(total).clamp(min=SHORTEST**2).sqrt()


def _between(
    count: int, before: int, behind: int, cells: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `count` pixels the two cells that it lies between, and the share of the second.

    Args:
        count: pixels.
        before, behind: how many more the cells reach over, too.
        cells: that stand over all of them.
        device: of the result.
    """
    pixels = before + torch.arange(count, device=device, dtype=torch.float32)
    place = ((pixels + 0.5) * (cells / (before + count + behind)) - 0.5).clamp(min=0, max=cells - 1)
    low = place.long().clamp(max=max(0, cells - 2))
    return low, (low + 1).clamp(max=cells - 1), place - low


def paint(scores: Tensor, found: Tensor, ids: Tensor) -> Tensor:
    """The scores [R, Q] of regions `found` [R], ascending, at all pixels of an id map [H, W]: [Q, H, W].

    Every id of the map is among them.
    """
    return scores[torch.searchsorted(found, ids.contiguous())].movedim(-1, 0)
