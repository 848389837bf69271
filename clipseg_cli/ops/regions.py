"""Id maps of regions: painted from masks, brought to other sizes, and asked for the label of most of their pixels.

An id map is an integer [H, W]: 0 where there is no region, ids from 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

MOST_REGIONS = 65_535
"""Of one image: as many as a 16-bit image can tell apart."""

BLOCK_PIXELS = 1 << 20
"""Pixels that are counted at once."""


def id_map_by_area(masks: Tensor) -> Tensor:
    """Overlapping masks as one id map: a larger mask covers a smaller one.

    Args:
        masks: bool [n, H, W].

    Returns:
        int32 [H, W]; the id of a mask is its rank by area, from 1. Of equal areas the later covers the earlier. Ids
        of masks that are covered altogether are absent.

    Source: zdk258/CorrCLIP@103bc18.
    """
    order = masks.flatten(1).sum(dim=1).argsort(stable=True)
    ids = range(1, len(order) + 1)
    return painted((masks[i] for i in order.tolist()), ids, (masks.shape[1], masks.shape[2]))


def id_map_by_score(masks: Tensor, scores: Tensor, min_score: float = 0.5) -> Tensor:
    """Overlapping masks as one id map: a surer mask covers a less sure one.

    Args:
        masks: bool [n, H, W].
        scores: [n] how sure each is.
        min_score: masks less sure are left out.

    Returns:
        int32 [H, W]; the id of a mask is its place among those that are kept, from 1.

    Source: zdk258/CorrCLIP@103bc18.
    """
    kept = masks[scores >= min_score]
    order = scores[scores >= min_score].argsort(stable=True).tolist()
    ids = (i + 1 for i in order)
    return painted((kept[i] for i in order), ids, (masks.shape[1], masks.shape[2]))


def painted(masks: Iterable[Tensor], ids: Iterable[int], size: tuple[int, int]) -> Tensor:
    """Masks, bool [H, W] each, laid over each other in the given order: int32 [H, W], 0 where there is none."""
    found: Tensor | None = None
    for mask, number in zip(masks, ids, strict=False):
        if found is None:
            found = torch.zeros(size, dtype=torch.int32, device=mask.device)
        found[mask.bool()] = number
    return torch.zeros(size, dtype=torch.int32) if found is None else found


def nearest_ids(ids: Tensor, size: tuple[int, int]) -> Tensor:
    """An id map [..., h, w] at another size, without making up ids: output cell i takes cell floor(i * in / out)."""
    height, width = ids.shape[-2:]
    if (height, width) == size:
        return ids
    # In whole numbers, since a factor in floats may end just below a cell.
    rows = torch.arange(size[0], device=ids.device) * height // size[0]
    columns = torch.arange(size[1], device=ids.device) * width // size[1]
    return ids[..., rows[:, None], columns]


class Vote(NamedTuple):
    """What regions say of an image.

    Attributes:
        labels: [H, W] like those that voted.
        confidence: [H, W] float32.
    """

    labels: Tensor
    confidence: Tensor


def vote(labels: Tensor, confidence: Tensor, regions: Tensor, unsegmented: int = 0) -> Vote:
    """All pixels of a region take the label that most of them have; of equally frequent ones the smallest id.

    Args:
        labels: [H, W] class ids.
        confidence: [H, W] in [0, 1], probability of the label of each pixel.
        regions: id map [H, W].
        unsegmented: pixels with this id belong to no region, and stay as they are.

    Returns:
        A pixel that changes its label becomes as sure as its region: the confidence of the pixels that had the label,
        summed, over the number of all its pixels. This is never more than the mean probability of the label in the
        region. All other pixels keep their confidence.

    Source: zdk258/CorrCLIP@103bc18 (arXiv:2411.10086).
    """
    # Row by row of blocks, since what is counted takes 8 bytes a pixel.
    blocks = list(zip(*(map_.split(_rows(map_)) for map_ in (labels, confidence, regions)), strict=True))
    ids, classes = (_present([block[i] for block in blocks]) for i in (2, 0))
    row, column = _places(ids), _places(classes)
    counts = torch.zeros(len(ids) * len(classes), dtype=torch.long, device=labels.device)
    for own, _, region in blocks:
        cells = row[region.long()] * len(classes) + column[own.long()]
        counts += torch.bincount(cells.flatten(), minlength=len(counts))
    table = counts.view(len(ids), -1)
    winner = classes[table.argmax(dim=1)]  # [R], of equals the first
    total = torch.zeros(len(ids), dtype=torch.double, device=labels.device)
    for own, sure, region in blocks:
        place = row[region.long()]
        agreeing = torch.where(winner[place] == own, sure, 0.0).double()
        total += torch.bincount(place.flatten(), agreeing.flatten(), minlength=len(ids))
    mean = (total / table.sum(dim=1)).to(confidence.dtype)
    found = Vote(labels.clone(), confidence.clone())
    written = zip(*(map_.split(_rows(map_)) for map_ in found), strict=True)
    for (own, _, region), (new_labels, new_confidence) in zip(blocks, written, strict=True):
        place = row[region.long()]
        changed = (winner[place] != own) & (region != unsegmented)
        new_labels[changed] = winner[place][changed].to(labels.dtype)
        new_confidence[changed] = mean[place][changed]
    return found


def _rows(map_: Tensor) -> int:
    """Rows of a block."""
    return max(1, BLOCK_PIXELS // max(1, map_.shape[1]))


def _present(blocks: Sequence[Tensor]) -> Tensor:
    """The numbers from 0 that occur, ascending."""
    last = max(int(block.max()) for block in blocks)
    counts = sum(torch.bincount(block.flatten(), minlength=last + 1) for block in blocks)
    return torch.as_tensor(counts).nonzero()[:, 0]


def _places(numbers: Tensor) -> Tensor:
    """Which of some ascending numbers each number up to the last is; 0 for those that are not among them."""
    places = torch.zeros(int(numbers[-1]) + 1, dtype=torch.long, device=numbers.device)
    places[numbers] = torch.arange(len(numbers), device=numbers.device)
    return places
