"""Refinement of patch scores: prompt denoising and key smoothing (MaskCLIP, arXiv:2112.01071)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ShapeError
from clipseg_cli.ops.similarity import merge_aliases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

REMOVED = -100.0
"""Score of a class that prompt denoising removed: far below any cosine."""


def absent_classes(
    logits: Tensor,
    threshold: float,
    *,
    scale: float = 100.0,
    query_to_class: Sequence[int] | None = None,
    keep: int | None = None,
) -> Tensor:
    """Which classes are nowhere in the picture more probable than `threshold`.

    Args:
        logits: [Q, h, w] cosines of one image.
        threshold: in [0, 1].
        scale: factor before the softmax over words.
        query_to_class: [Q] class of each word, or None when every word is a class.
        keep: id of a class that is never removed (the background), or None.

    Returns:
        [C] bool, True where the class is to be removed.
    """
    words = (scale * logits.flatten(1)).softmax(dim=0).amax(dim=1)  # [Q]
    if query_to_class is None:
        query_to_class = range(len(words))
    best = merge_aliases(words, query_to_class, max(query_to_class) + 1)  # [C]
    absent = best < threshold
    if keep is not None:
        absent[keep] = False
    return absent


def remove_classes(logits: Tensor, absent: Tensor, query_to_class: Sequence[int] | None = None) -> Tensor:
    """Give the words of the classes marked in `absent` [C] the score REMOVED everywhere: [Q, h, w]."""
    words = (
        absent if query_to_class is None else absent[torch.as_tensor(query_to_class, device=absent.device)]
    )
    return logits.masked_fill(words[:, None, None], REMOVED)


def doubtful_patches(prob: Tensor, objectness: Tensor, delta: float = 0.99) -> Tensor:
    """Patches of which neither the words nor a head that knows objects are sure; they become background.

    Args:
        prob: [B, C, h, w] probabilities.
        objectness: [B, 1, h, w] logits of being an object.
        delta: a largest probability below it counts as unsure.

    Returns:
        [B, h, w] bool.

    Source: wysoczanska/clip_dinoiser@a954aae, models/clip_dinoiser/clip_dinoiser.py (arXiv:2312.12359).
    """
    return (prob.amax(dim=1) < delta) & (objectness[:, 0].sigmoid() <= 0.5)


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


def smooth_by_keys(
    logits: Tensor,
    keys: Tensor,
    threshold: float,
    *,
    scale: float = 100.0,
    norm: Literal["token", "position"] = "token",
) -> tuple[Tensor, Tensor]:
    """Unsure patches take over what patches with similar keys say.

    With A = K K^T this replaces P by A P where the largest P is below `threshold`. A is never built:
    K (K^T P) needs memory linear in the number of patches.

    Args:
        logits: [Q, h, w] cosines of one image, after prompt denoising.
        keys: [K, h, w] key features of the last block.
        threshold: in [0, 1]; 1 smooths every patch whose largest probability is not exactly 1.
        scale: factor before the softmax over words.
        norm: "token" makes every patch's key a unit vector and divides by the row sums of A (the paper: a
            weighted average); "position" makes every channel a unit vector over the patches and uses A as
            it is (the published code), so that results need not lie in [0, 1].

    Returns:
        probabilities [Q, h, w] (no longer cosines), and bool [h*w] marking the patches that were replaced.

    Raises:
        ShapeError: keys and logits lie on different grids.

    Source: chongzhou96/MaskCLIP@245d31f, mmseg/models/decode_heads/maskclip_head.py, refine_output.
    """
    if keys.shape[1:] != logits.shape[1:]:
        raise ShapeError(f"keys on grid {tuple(keys.shape[1:])}, scores on {tuple(logits.shape[1:])}")
    prob = (scale * logits.flatten(1)).softmax(dim=0)  # [Q, N]
    unsure = prob.amax(dim=0) < threshold  # [N]
    flat = keys.flatten(1).float()  # [K, N]
    flat = F.normalize(flat, dim=0 if norm == "token" else 1)
    smoothed = (prob @ flat.T) @ flat  # [Q, N], (A P)^T with symmetric A
    if norm == "token":
        # A key that opposes most of the others can have a row sum near or below zero; it stays as it is.
        rows = flat.sum(dim=1) @ flat  # [N]
        unsure = unsure & (rows > 1e-3)
        smoothed = smoothed / rows.clamp(min=1e-3)
    refined = torch.where(unsure, smoothed, prob)
    return refined.view_as(logits), unsure
