"""From small score maps to one label a pixel, without ever holding a full-size map for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from clipseg_cli.ops.axes import bilinear_axis, cells
from clipseg_cli.types import Tile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from clipseg_cli.ops.axes import Axis
    from clipseg_cli.types import PixelRefinement


NARROW = torch.iinfo(torch.int16).max
"""Words up to which the winner of a pixel takes two bytes."""


class Reduced(NamedTuple):
    """What is left of Q maps at full size; of several images with [B] in front of each shape.

    Attributes:
        winner: [H, W] index of the best word: int16, or int32 where that is too narrow.
        score: [H, W] float32, its probability.
        log_total: [H, W] float32, log of the softmax denominator (or of the sum of the maps when these are
            probabilities already); with it, any single word's probability map can be made later.
    """

    winner: Tensor
    score: Tensor
    log_total: Tensor | None


class Layer(NamedTuple):
    """Small maps, and how they are brought to full size, along each axis by itself.

    Attributes:
        maps: [Q, h, w] float32, or [B, Q, h, w] of several images.
        down: to H rows.
        across: to W columns.
    """

    maps: Tensor
    down: Axis
    across: Axis

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the result."""
        return len(self.down), len(self.across)


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Whole maps [B, K, h, w] to [B, K, H, W] in float32, bilinearly; those of that size are handed back as they are.

    For training, which needs all classes of every pixel; `reduce_maps` decides without holding them.
    """
    if tuple(maps.shape[-2:]) == size:
        return maps.float()
    return F.interpolate(maps.float(), size, mode="bilinear", align_corners=False)


class Compose:
    """Several refinements at full size, one after the other."""

    def __init__(self, refinements: Sequence[PixelRefinement]) -> None:
        self.refinements = tuple(refinements)
        self.margin = sum(refinement.margin for refinement in refinements)

    def __call__(self, logits: Tensor, tile: Tile, queries: Sequence[int]) -> Tensor:
        """[n, rows, columns] -> the same."""
        for refinement in self.refinements:
            logits = refinement(logits, tile, queries)
        return logits


def stretched(maps: Tensor, size: tuple[int, int]) -> Layer:
    """Maps [..., h, w] over the whole of (H, W), bilinearly."""
    down, across = (bilinear_axis(*pair, maps.device) for pair in zip(maps.shape[-2:], size, strict=True))
    return Layer(maps.float(), down, across)


def images_at_once(queries: int, size: tuple[int, int], device: torch.device) -> int:
    """How many images of (H, W) a tile of the usual size has room for, with all words of each; at least 1."""
    return max(1, _tile_bytes(0, device) // (4 * queries * size[0] * size[1]))


def reduce_maps(
    maps: Tensor, size: tuple[int, int], *, probabilities: bool = False, tile_bytes: int | None = None
) -> Reduced:
    """Upsample bilinearly and take argmax and softmax, tile by tile; see `reduce_layers`.

    Args:
        maps: [Q, h, w] float32 logits, already multiplied by the softmax scale; or probabilities.
        size: (H, W) of the result.
        probabilities, tile_bytes: as for `reduce_layers`.
    """
    return reduce_layers([stretched(maps, size)], probabilities=probabilities, tile_bytes=tile_bytes)


def reduce_layers(
    layers: Sequence[Layer],
    *,
    probabilities: bool = False,
    refinement: PixelRefinement | None = None,
    excluded: Tensor | None = None,
    totals: bool = True,
    tile_bytes: int | None = None,
) -> Reduced:
    """Bring maps to full size, add them, and take argmax and softmax, tile by tile.

    The result is that of the full-size maps, then softmax over words, then argmax; memory is one tile of all words
    plus two or three full-size maps.

    Args:
        layers: scores of the same words, to be added.
        probabilities: the scores are compared as they are, without softmax; `score` is the winner's share of the
            sum over words, negative ones counted as zero.
        refinement: what happens to the scores before they are compared.
        excluded: bool [Q], words that may not win, though they take part in the softmax.
        totals: keep `log_total`, for maps of single classes.
        tile_bytes: size of a tile of all words; None suits the device.
    """
    size, queries, device = layers[0].size, layers[0].maps.shape[-3], layers[0].maps.device
    narrow = torch.int16 if queries <= NARROW else torch.int32
    margin = 0 if refinement is None else refinement.margin
    full: Reduced | None = None
    images = layers[0].maps.shape[:-3]
    cells = _tile_cells(queries * images.numel(), margin, device, tile_bytes)
    for tile, scores in _tiles(layers, size, margin, cells):
        if refinement is not None:
            scores = _inner(refinement(scores, _widened(tile, margin, size), range(queries)), tile, margin)
        found = _reduce_tile(scores, probabilities=probabilities, excluded=excluded, totals=totals)
        found = found._replace(winner=found.winner.to(narrow))
        if tile == (0, size[0], 0, size[1]):
            return found
        full = full or Reduced(
            *(None if part is None else part.new_empty((*images, *size)) for part in found)  # type: ignore[arg-type]
        )
        for whole, part in zip(full, found, strict=True):
            if whole is not None and part is not None:
                whole[..., tile.top : tile.bottom, tile.left : tile.right] = part
    assert full is not None  # an image has pixels
    return full


def winners(maps: Tensor) -> Tensor:
    """The first of K maps that is largest at each pixel: [B, K, H, W] -> int64 [B, H, W]."""
    if maps.device.type != "cpu":
        return _best_of(maps)[1]
    rows = max(1, _tile_bytes(0, maps.device) // (4 * maps.shape[1] * maps.shape[3]))
    found = [torch.cat([_best_of(tile)[1] for tile in one.split(rows, dim=1)]) for one in maps]
    return torch.stack(found).long()


def _reduce_tile(scores: Tensor, *, probabilities: bool, excluded: Tensor | None, totals: bool) -> Reduced:
    """What is left of [..., Q, rows, columns], which is overwritten."""
    if excluded is None and not probabilities:
        best, index = _best_of(scores, behind=scores)
        spread = scores.exp_().sum(dim=-3)
        return Reduced(index, spread.reciprocal(), spread.log_().add_(best) if totals else None)
    best, index = _best_of(
        scores if excluded is None else scores.masked_fill(excluded[:, None, None], -torch.inf)
    )
    if probabilities:
        total = scores.clamp_(min=0).sum(dim=-3).clamp_(min=1e-12)
        return Reduced(index, best.clamp(min=0) / total, total.log() if totals else None)
    largest = scores.amax(dim=-3)
    spread = scores.sub_(largest.unsqueeze(-3)).exp_().sum(dim=-3)
    return Reduced(index, (best - largest).exp_() / spread, spread.log_().add_(largest) if totals else None)


def _best_of(scores: Tensor, behind: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The largest of Q scores at each pixel, and the first word that has it: [..., rows, columns] each.

    Args:
        scores: [..., Q, rows, columns].
        behind: becomes how far each is behind the largest; may be `scores`.
    """
    if scores.device.type != "cpu":
        best, index = scores.max(dim=-3)
        if behind is not None:
            torch.sub(scores, best.unsqueeze(-3), out=behind)
        return best, index
    # On a CPU `max` goes pixel by pixel. These passes are vectorised, and most go over a byte or two a number.
    best, queries = scores.amax(dim=-3), scores.shape[-3]
    behind = torch.sub(scores, best.unsqueeze(-3), out=behind)
    narrow = next(
        kind for kind in (torch.uint8, torch.int16, torch.int32) if 2 * queries <= torch.iinfo(kind).max
    )
    words = torch.arange(queries, dtype=narrow)[:, None, None]
    first = behind.bool().to(narrow).mul_(queries).add_(words).amin(dim=-3)
    return best, first.clamp_(max=queries - 1).int()  # where all is NaN, nobody is the best


def _tile_cells(queries: int, margin: int, device: torch.device, tile_bytes: int | None) -> int:
    """Pixels of a tile, its margin left out."""
    tile_bytes = tile_bytes or _tile_bytes(margin, device)
    side = max(1.0, tile_bytes / (4 * queries)) ** 0.5 - 2 * margin
    return int(max(side, margin, 1) ** 2)


def _tile_bytes(margin: int, device: torch.device) -> int:
    """On a CPU a tile should stay in the cache; on an accelerator, or with a margin, it should fill the machine."""
    return 2 << 20 if device.type == "cpu" and not margin else 256 << 20


def _widened(tile: Tile, margin: int, size: tuple[int, int]) -> Tile:
    return Tile(
        max(0, tile.top - margin),
        min(size[0], tile.bottom + margin),
        max(0, tile.left - margin),
        min(size[1], tile.right + margin),
    )


def _inner(scores: Tensor, tile: Tile, margin: int) -> Tensor:
    """A tile without the margin that it was widened by."""
    top, left = min(margin, tile.top), min(margin, tile.left)
    return scores[..., top : top + tile.bottom - tile.top, left : left + tile.right - tile.left]


def _tiles(
    layers: Sequence[Layer], size: tuple[int, int], margin: int, cells: int
) -> Iterator[tuple[Tile, Tensor]]:
    """Tiles that cover the result, each with the scores [..., Q, rows, columns] of it and of its margin."""
    height, width = size
    columns = width if cells >= height * width else min(width, max(64, round(cells**0.5)))
    rows = min(height, max(1, cells // columns))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        wide = _widened(Tile(top, bottom, 0, width), margin, size)
        bands = [_band(one, wide) for one in layers]  # [..., Q, rows, w]
        for left in range(0, width, columns):
            tile = Tile(top, bottom, left, min(width, left + columns))
            wide = _widened(tile, margin, size)
            parts = (_columns(band, one.across, wide) for band, one in zip(bands, layers, strict=True))
            scores = next(parts)
            for part in parts:
                scores += part
            yield tile, scores


def layer_tile(layer: Layer, tile: Tile) -> Tensor:
    """A rectangle of a layer at full size: [..., Q, rows, columns]."""
    return _columns(_band(layer, tile), layer.across, tile)


def _band(layer: Layer, tile: Tile) -> Tensor:
    """The rows of a tile, before they are stretched: [..., Q, rows, w]."""
    weights, first, behind = layer.down.part(tile.top, tile.bottom)
    return _along(cells(layer.maps.float(), -2, first, behind).mT, weights).mT


def _columns(band: Tensor, across: Axis, tile: Tile) -> Tensor:
    """[..., Q, rows, w] -> the columns of a tile: [..., Q, rows, columns]."""
    weights, first, behind = across.part(tile.left, tile.right)
    return _along(cells(band, -1, first, behind), weights)


def _along(maps: Tensor, weights: Tensor) -> Tensor:
    """[..., source] -> [..., target] in one product, where `matmul` may make one for each word."""
    return (maps.reshape(-1, maps.shape[-1]) @ weights).view(*maps.shape[:-1], weights.shape[1])


def probability_maps(
    layers: Sequence[Layer],
    log_total: Tensor,
    words: Sequence[int],
    *,
    probabilities: bool = False,
    refinement: PixelRefinement | None = None,
) -> Tensor:
    """Probabilities of a few words at full size.

    Args:
        layers, probabilities, refinement: as `reduce_layers` had them.
        log_total: [H, W] of its result.
        words: [n] indices among the Q words.

    Returns:
        [n, H, W].
    """
    few = [one._replace(maps=one.maps[list(words)]) for one in layers]
    size, device = layers[0].size, log_total.device
    margin = 0 if refinement is None else refinement.margin
    full = torch.empty(len(words), *size, device=device)
    for tile, scores in _tiles(few, size, margin, _tile_cells(len(words), margin, device, None)):
        if refinement is not None:
            scores = _inner(refinement(scores, _widened(tile, margin, size), words), tile, margin)
        full[:, tile.top : tile.bottom, tile.left : tile.right] = scores
    if probabilities:
        return full.clamp_(min=0).div_(log_total.exp())
    return full.sub_(log_total).exp_()
