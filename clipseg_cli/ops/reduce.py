"""From small score maps to one label a pixel, without ever holding a full-size map for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from clipseg_cli.types import Tile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from clipseg_cli.types import PixelRefinement


NARROW = torch.iinfo(torch.int16).max
"""Words up to which the winner of a pixel takes two bytes."""


class Reduced(NamedTuple):
    """What is left of Q maps at full size.

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
    """Small maps, and how they are brought to full size: along each axis by a matrix of its own.

    Attributes:
        maps: [Q, h, w] float32.
        down: [H, h] weights.
        across: [W, w] weights.
    """

    maps: Tensor
    down: Tensor
    across: Tensor

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


def bilinear_matrix(source: int, target: int, device: torch.device) -> Tensor:
    """[target, source] weights of a bilinear resize along one axis (align_corners=False, no antialias)."""
    position = (torch.arange(target, dtype=torch.float32) + 0.5) * (source / target) - 0.5
    return _between(position.clamp(min=0), source).to(device)


def centred_matrix(centres: Sequence[float], target: int, device: torch.device) -> Tensor:
    """[target, n] weights of linear interpolation between cells that stand at given places along one axis.

    Args:
        centres: ascending, in cells of the result, 0.5 being the middle of the first.
        target: cells of the result; those before the first centre and behind the last repeat it.
        device: of the result.
    """
    place = torch.tensor(centres, dtype=torch.float32)
    wanted = torch.arange(target, dtype=torch.float32) + 0.5
    low = (torch.searchsorted(place, wanted, right=True) - 1).clamp(0, max(0, len(place) - 2))
    high = (low + 1).clamp(max=len(place) - 1)
    gap = (place[high] - place[low]).clamp(min=1e-6)
    return _between(low + ((wanted - place[low]) / gap).clamp(0, 1), len(place)).to(device)


def nearest_matrix(source: int, target: int, device: torch.device) -> Tensor:
    """[target, source] that repeats cells along one axis, as `F.interpolate(mode="nearest")` does."""
    index = (torch.arange(target) * (source / target)).floor().long().clamp(max=source - 1)
    return F.one_hot(index, source).float().to(device)


def _between(position: Tensor, source: int) -> Tensor:
    """Weights of the two source cells around each position, counted in source cells from the middle of the first."""
    low = position.floor().long().clamp(max=source - 1)
    high = (low + 1).clamp(max=source - 1)
    weight = position - low
    matrix = torch.zeros(len(position), source)
    rows = torch.arange(len(position))
    matrix[rows, low] += 1 - weight
    matrix[rows, high] += weight
    return matrix


class Compose:
    """Several refinements at full size, one after the other."""

    def __init__(self, refinements: Sequence[PixelRefinement]) -> None:
        self.refinements = tuple(refinements)
        self.margin = sum(refinement.margin for refinement in refinements)

    def __call__(self, logits: Tensor, tile: Tile, queries: Sequence[int]) -> Tensor:
        """[rows, columns, n] -> the same."""
        for refinement in self.refinements:
            logits = refinement(logits, tile, queries)
        return logits


def stretched(maps: Tensor, size: tuple[int, int]) -> Layer:
    """Maps [Q, h, w] over the whole of (H, W), bilinearly."""
    down, across = (bilinear_matrix(*pair, maps.device) for pair in zip(maps.shape[1:], size, strict=True))
    return Layer(maps.float(), down, across)


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
    size, queries, device = layers[0].size, len(layers[0].maps), layers[0].maps.device
    narrow = torch.int16 if queries <= NARROW else torch.int32
    winner = torch.empty(size, dtype=narrow, device=device)
    score = torch.empty(size, device=device)
    log_total = torch.empty(size, device=device) if totals else None
    margin = 0 if refinement is None else refinement.margin
    for tile, scores in _tiles(layers, size, margin, _tile_cells(queries, margin, device, tile_bytes)):
        here = (slice(tile.top, tile.bottom), slice(tile.left, tile.right))
        if refinement is not None:
            scores = _inner(refinement(scores, _widened(tile, margin, size), range(queries)), tile, margin)
        candidates = scores if excluded is None else scores.masked_fill(excluded, -torch.inf)
        best, index = candidates.max(dim=2)
        winner[here] = index.to(narrow)
        if probabilities:
            total = scores.clamp(min=0).sum(dim=2).clamp(min=1e-12)
            score[here] = best.clamp(min=0) / total
            if log_total is not None:
                log_total[here] = total.log()
        else:
            chance = scores.softmax(dim=2).gather(2, index[..., None])[..., 0]
            score[here] = chance
            if log_total is not None:
                log_total[here] = best - chance.log()
    return Reduced(winner, score, log_total)


def _tile_cells(queries: int, margin: int, device: torch.device, tile_bytes: int | None) -> int:
    """Pixels of a tile, its margin left out."""
    if tile_bytes is None:
        # On a CPU the tile should stay in the cache; on an accelerator, or with a margin, it should fill the machine.
        tile_bytes = 2 << 20 if device.type == "cpu" and not margin else 256 << 20
    side = max(1.0, tile_bytes / (4 * queries)) ** 0.5 - 2 * margin
    return int(max(side, margin, 1) ** 2)


def _widened(tile: Tile, margin: int, size: tuple[int, int]) -> Tile:
    return Tile(
        max(0, tile.top - margin),
        min(size[0], tile.bottom + margin),
        max(0, tile.left - margin),
        min(size[1], tile.right + margin),
    )


def _inner(scores: Tensor, tile: Tile, margin: int) -> Tensor:
    """A tile without the margin that it was widened by."""
    rows, columns = min(margin, tile.top), min(margin, tile.left)
    return scores[rows : rows + tile.bottom - tile.top, columns : columns + tile.right - tile.left]


def _tiles(
    layers: Sequence[Layer], size: tuple[int, int], margin: int, cells: int
) -> Iterator[tuple[Tile, Tensor]]:
    """Tiles that cover the result, each with the scores [rows, columns, Q] of it and of its margin."""
    height, width = size
    columns = min(width, max(64, round(cells**0.5)))
    rows = min(height, max(1, cells // columns))
    # The reduction runs along memory: [h, w, Q].
    turned = [(one.maps.float().permute(1, 2, 0).contiguous(), one.down, one.across) for one in layers]
    for left in range(0, width, columns):
        right = min(width, left + columns)
        wide = _widened(Tile(0, height, left, right), margin, size)
        strips = [_strip(maps, across[wide.left : wide.right]) for maps, _, across in turned]  # [h, cols, Q]
        for top in range(0, height, rows):
            tile = Tile(top, min(height, top + rows), left, right)
            wide = _widened(tile, margin, size)
            parts = (
                _rows(strip, down[wide.top : wide.bottom])
                for strip, (_, down, _) in zip(strips, turned, strict=True)
            )
            scores = next(parts)
            for part in parts:
                scores += part
            yield tile, scores


def layer_tile(layer: Layer, tile: Tile) -> Tensor:
    """A rectangle of a layer at full size: [rows, columns, Q]."""
    maps = layer.maps.permute(1, 2, 0)
    return _rows(_strip(maps, layer.across[tile.left : tile.right]), layer.down[tile.top : tile.bottom])


def _strip(maps: Tensor, across: Tensor) -> Tensor:
    first, last = _support(across)
    return torch.matmul(across[:, first:last], maps[:, first:last])


def _rows(strip: Tensor, down: Tensor) -> Tensor:
    above, below = _support(down)
    flat = down[:, above:below] @ strip[above:below].flatten(1)
    return flat.view(len(down), *strip.shape[1:])


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
        full[:, tile.top : tile.bottom, tile.left : tile.right] = scores.permute(2, 0, 1)
    if probabilities:
        return full.clamp_(min=0).div_(log_total.exp())
    return full.sub_(log_total).exp_()


def _support(weights: Tensor) -> tuple[int, int]:
    """First and one past the last source cell that a block of output cells draws from."""
    used = weights.any(dim=0).nonzero()
    return int(used[0]), int(used[-1]) + 1
