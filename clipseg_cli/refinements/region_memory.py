"""A memory of unlabelled images: what looks like a region, in many images, says what it is (CorrCLIPv2's fusion).

Each region of the image is asked for in the bank by what it looks like; the mean of what its neighbours mean is
compared with the words, and the scores of its pixels become half their own and half those. What a region looks like is
said by the network of `--guide`, which sees the whole image once, or else by the values of the tower's own last block.

Pixels in no region are asked for together, as one region, as published. In the published order of steps scores are
mixed at the size of the network input; else at full size, where regions are as sharp as their map. There a region that
is smaller than a pixel of the network input keeps its own scores.

Reference: zdk258/CorrCLIP@103bc18, CorrCLIPv2/corrclip_segmentor.py.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.ops.neighbours import nearest, support
from clipseg_cli.ops.region_means import paint, region_means, windowed_means
from clipseg_cli.ops.regions import nearest_ids
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import Context, LogitMaps, Tile, WindowBatch, Words


NEIGHBOURS = 20
"""As published."""


def observe(windows: WindowBatch, words: Words) -> Tensor:
    """What the patches of each window look like to the tower: [B, W, h, w]; no channel where a guide is asked."""
    del words
    values = windows.dense.values
    return windows.logits[:, :0] if values is None else values.float()


class Mixed:
    """Scores at full size with those of regions, tile by tile.

    Args:
        ids: [H, W] at full size.
        found: [R] the regions that were asked for, ascending.
        scores: [R, Q] of each, scaled.
        share: of the image's own scores.
    """

    margin = 0

    def __init__(self, ids: Tensor, found: Tensor, scores: Tensor, share: float) -> None:
        self.ids, self.found, self.scores, self.share = ids, found, scores, share

    def __call__(self, logits: Tensor, tile: Tile, queries: Sequence[int]) -> Tensor:
        """[n, rows, columns] -> the same, mixed."""
        ids = self.ids[tile.top : tile.bottom, tile.left : tile.right].contiguous()
        places = torch.searchsorted(self.found, ids).clamp(max=len(self.found) - 1)
        there = self.found[places] == ids
        own = self.scores.mT[list(queries)][:, places]
        return torch.where(there, self.share * logits + (1 - self.share) * own, logits)


def refine(
    maps: LogitMaps, context: Context, value: str, *, neighbours: int = NEIGHBOURS, share: float = 0.5
) -> LogitMaps:
    """The maps of an image, mixed with what its regions recall.

    Args:
        maps: of an image.
        context: with its regions and the bank.
        value: of the option.
        neighbours: of each region; a bank with fewer gives all it has.
        share: of the image's own scores.
    """
    del value
    bank = context.bank
    assert bank is not None  # or else nothing turned the step on
    image, regions = context.image(), context.auxiliary["regions"][0]
    size = (image.shape[1], image.shape[2])
    ids = nearest_ids(regions, size)
    found, means = _looks(context, image, ids)
    rows, _ = nearest(F.normalize(means, dim=1), bank.keys, neighbours)
    scores = support(bank.values, rows) @ context.words.text_embeds.float().mT  # [R, Q]
    if maps.weights is None and tuple(maps.maps[0].shape[1:]) == size:
        mixed = share * maps.maps[0] + (1 - share) * paint(scores, found, ids)
        return dataclasses.replace(maps, maps=(mixed,))
    full = nearest_ids(regions, context.size)
    return maps.then(Mixed(full, found, context.softmax_scale * scores, share))


def _looks(context: Context, image: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The regions of an image at network size, and what each looks like: [R], [R, K]."""
    assert context.bank is not None
    if context.bank.key_encoder is not None:
        return region_means(context.bank.key_encoder(image[None])[0], ids, unit=True, none=None)
    seen = context.observed["region_memory"]
    return windowed_means(
        list(zip(seen, context.windows, context.paddings, strict=True)), ids, unit=True, none=None
    )


REFINEMENT = Refinement(
    refine,
    scope="pixel",
    order=8,
    observe=observe,
    chosen_by=("memory",),
    needs=("regions", "values"),
    ranges={"neighbours": (1, 10_000), "share": (0, 1)},
    summary="regions of unlabelled images that look alike say what a region is",
    paper="arXiv:2411.10086",
    reference="zdk258/CorrCLIP@103bc18",
)
