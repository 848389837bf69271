"""Prompt denoising: classes that are sure of no patch are dropped (MaskCLIP, arXiv:2112.01071, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.similarity import merge_aliases, remove_classes
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import Context, LogitMaps


def absent_classes(
    logits: Tensor,
    threshold: float,
    *,
    scale: float = 100.0,
    query_to_class: Sequence[int] | None = None,
    keep: int | None = None,
) -> Tensor:
    """Which classes are nowhere in the image more probable than `threshold`.

    Args:
        logits: [..., Q, h, w] cosines of one image, or of several.
        threshold: in [0, 1].
        scale: factor before the softmax over words.
        query_to_class: [Q] class of each word, or None when every word is a class.
        keep: id of a class that is never removed (the background), or None.

    Returns:
        [..., C] bool, True where the class is to be removed.
    """
    words = (scale * logits.flatten(-2)).softmax(dim=-2).amax(dim=-1)  # [..., Q]
    if query_to_class is None:
        query_to_class = range(words.shape[-1])
    best = merge_aliases(words.movedim(-1, 0), query_to_class, max(query_to_class) + 1)  # [C, ...]
    absent = best.movedim(0, -1) < threshold
    if keep is not None:
        absent[..., keep] = False
    return absent


def refine(maps: LogitMaps, context: Context, value: float) -> LogitMaps:
    """The maps without the classes that are nowhere more probable than `value`, whichever of the maps they are in."""
    classes = context.words.classes
    flat = torch.cat([one.flatten(-2) for one in maps.maps], dim=-1)[..., None]  # [..., Q, n, 1]
    absent = absent_classes(
        flat,
        value,
        scale=context.words.scale,
        query_to_class=classes.query_to_class,
        keep=classes.background,
    )
    return maps.each(lambda one: remove_classes(one, absent, classes.query_to_class))


REFINEMENT = Refinement(
    refine,
    scope="grid",
    order=20,
    together=True,
    summary="classes that are nowhere more probable than T are dropped",
    paper="arXiv:2112.01071",
    reference="chongzhou96/MaskCLIP@245d31f",
)
