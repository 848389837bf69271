"""Area rule: classes that cover too little of the foreground are dropped (SCLIP's protocol)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.logits import reduce_logits
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import Context, LogitMaps


def small_classes(labels: Tensor, num_classes: int, share: float, background: int = 0) -> Tensor:
    """Which classes cover too little of the foreground to be believed.

    Args:
        labels: [H, W] class ids, decided without the rule.
        num_classes: C.
        share: of the pixels that are not background; a class with at most so many goes.
        background: id of the class that is no foreground, and that always stays.

    Returns:
        [C] bool, True where the class is to be removed.

    Source: wangf3014/SCLIP@b56bd30, clip_segmentor.py, postprocess_result (area_thd).
    """
    counts = torch.bincount(labels.flatten().long(), minlength=num_classes)
    foreground = counts.sum() - counts[background]
    small = counts <= share * foreground
    small[background] = False
    return small


def refine(maps: LogitMaps, context: Context, value: float) -> LogitMaps:
    """The maps with the words of small classes excluded from winning, once all pixels were decided without the rule."""
    words = context.words
    labels = words.class_of[reduce_logits(maps, context.size, context.softmax_scale).winner.long()]
    small = small_classes(labels, len(words.classes), value, words.classes.background or 0)
    return dataclasses.replace(maps, excluded=small[words.class_of.long()])


REFINEMENT = Refinement(
    refine,
    scope="image",
    order=10,
    needs=("background",),
    summary="classes that cover at most this share of the foreground are dropped",
    reference="wangf3014/SCLIP@b56bd30",
)
