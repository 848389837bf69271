"""Key smoothing: unsure patches take over what patches with similar keys say (MaskCLIP, arXiv:2112.01071)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ShapeError
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import Context, LogitMaps


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


def refine(maps: LogitMaps, context: Context, value: float) -> LogitMaps:
    """Probabilities, smoothed where the largest is below `value`; the published code compares them as they are."""
    if maps.keys is None:
        raise ShapeError("key smoothing needs the keys of the patches")
    keys, (logits,) = maps.keys, maps.maps
    smoothed, _ = smooth_by_keys(logits, keys, value, scale=context.words.scale, norm=context.key_norm)
    return dataclasses.replace(maps, maps=(smoothed,), probabilities=True)


REFINEMENT = Refinement(
    refine,
    scope="grid",
    order=30,
    needs=("keys",),
    summary="patches less sure than T take over what patches with similar keys say",
    paper="arXiv:2112.01071",
    reference="chongzhou96/MaskCLIP@245d31f",
)
