"""Which classes are in an image, by how their maps hold together: FreeCP's purification (arXiv:2508.00557).

In each window, class maps flow along what patches attend to in all blocks but the last. A class whose map does not
agree with what becomes of it is redundant and goes. Of classes that then lie in the same places, each box of them keeps
the one that a crop of the image looks like.

Here it says which classes are there, and the scores of these stay those of the method: a class goes where no window
keeps it, and the background always stays. The published code takes the flowed maps for scores, window by window, and
judges crops by long descriptions that a language model wrote; here the words themselves judge.

Reference: chenqi1126/FreeCP@6946aa7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ShapeError
from clipseg_cli.ops.purify import LEVEL, affinity, consistency, refined_maps, settled
from clipseg_cli.ops.similarity import merge_aliases
from clipseg_cli.refinements._absent import without_absent
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from clipseg_cli.ops.purify import Box
    from clipseg_cli.types import Context, LogitMaps, WindowBatch, Words

REDUNDANCY, OVERLAP, CROP = 0.1, 0.7, 112
"""As published for most data sets: 0.05 with 150 words and more, 0.15 with 21."""


def observe(
    windows: WindowBatch,
    words: Words,
    *,
    redundancy: float = REDUNDANCY,
    overlap: float = OVERLAP,
    crop: int = CROP,
    level: float = LEVEL,
) -> Tensor:
    """Evidence [B, C] of each class in each window: its agreement, and 1 more where the window keeps it.

    Args:
        windows: with attention, images, and a way to embed crops.
        words: that compete.
        redundancy: agreement up to which a class goes.
        overlap: soft IoU from which two classes lie in the same place.
        crop: pixels to which a side of a crop is resized; rounded to whole patches.
        level: share of the highest value of a map from which a patch is foreground.
    """
    attention, embed, images = windows.dense.attention, windows.embed, windows.images
    if attention is None or embed is None or images is None:
        raise ShapeError("FreeCP needs attention and embeddings of crops")
    classes = words.classes
    found = []
    for i, cosines in enumerate(windows.logits):
        grid = (cosines.shape[1], cosines.shape[2])
        prob = (words.scale * cosines).softmax(dim=0)
        scaled = (prob - prob.min()) / (prob.max() - prob.min()).clamp(min=1e-8)
        of_classes = merge_aliases(prob, classes.query_to_class, len(classes))
        graph = affinity(_on_grid(attention[i].float().mean(dim=0), grid))
        maps = refined_maps(merge_aliases(scaled, classes.query_to_class, len(classes)), graph, level)
        agreement = consistency(of_classes, maps)
        kept = [c for c in (agreement > redundancy).nonzero()[:, 0].tolist() if c != classes.background]
        judge = _Judge(images[i], grid, embed, words, crop)
        stay = settled(maps, kept, overlap, judge, level)
        evidence = agreement.clamp(max=1)
        evidence[stay] += 1
        found.append(evidence)
    return torch.stack(found)


class _Judge:
    """Which of some classes the contents of a box look like."""

    def __init__(
        self, image: Tensor, grid: tuple[int, int], embed: Callable[[Tensor], Tensor], words: Words, crop: int
    ) -> None:
        self.image, self.grid, self.embed, self.words, self.crop = image, grid, embed, words, crop

    def __call__(self, box: Box, classes: Sequence[int]) -> int:
        rows, columns = (side / cells for side, cells in zip(self.image.shape[1:], self.grid, strict=True))
        top, bottom = (round(edge * rows) for edge in box[:2])
        left, right = (round(edge * columns) for edge in box[2:])
        part = self.image[None, :, top:bottom, left:right]
        seen = F.interpolate(part, (self.crop, self.crop), mode="bilinear", align_corners=False)
        cosines = F.normalize(self.embed(seen).float(), dim=1) @ self.words.text_embeds.T
        return classes[int(torch.stack([cosines[0, self.words.of(c)].max() for c in classes]).argmax())]


def _on_grid(attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """Attention [n, n], refused where scores are on another grid than the patches that it joins."""
    if len(attention) != grid[0] * grid[1]:
        raise ShapeError(f"attention between {len(attention)} patches, scores on {grid}")
    return attention


def refine(maps: LogitMaps, context: Context, value: str) -> LogitMaps:
    """The maps without the classes that no window keeps; the one with most evidence always stays."""
    del value
    return without_absent(maps, context, "freecp")


REFINEMENT = Refinement(
    refine,
    scope="grid",
    order=11,
    observe=observe,
    chosen_by=("presence", "freecp"),
    needs=("attention",),
    ranges={"redundancy": (0, 1), "overlap": (0, 1), "crop": (8, 2048), "level": (0, 1)},
    summary="classes whose maps do not hold together, or that others explain better, are dropped",
    paper="arXiv:2508.00557",
    reference="chenqi1126/FreeCP@6946aa7",
)
