"""Patches of which neither the words nor a head that knows objects are sure become background (CLIP-DINOiser)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import WindowBatch, Words


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


def refine_windows(windows: WindowBatch, words: Words, *, delta: float = 0.99) -> Tensor:
    """Cosines [B, Q, h, w], those of the background 1 where neither words nor the guide see a thing."""
    background = words.classes.background
    if windows.dense.objectness is None or background is None:
        return windows.logits
    prob = (words.scale * windows.logits).softmax(dim=1)
    objectness = F.interpolate(windows.dense.objectness.float(), windows.logits.shape[2:])
    doubtful = doubtful_patches(prob, objectness, delta)
    return windows.logits.masked_fill(doubtful[:, None] & words.of(background)[:, None, None], 1.0)


REFINEMENT = Refinement(
    None,
    scope="window",
    order=10,
    refine_windows=refine_windows,
    needs=("background",),
    ranges={"delta": (0, 1)},
    summary="patches that neither words nor a guide with a head for objects are sure of become background",
    paper="arXiv:2312.12359",
    reference="wysoczanska/clip_dinoiser@a954aae",
)
