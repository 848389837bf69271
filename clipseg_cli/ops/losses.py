"""What a student is trained by: cross-entropy with pseudo labels, L1 distance to the teacher's features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

from clipseg_cli.errors import ShapeError
from clipseg_cli.ops.reduce import upsample

if TYPE_CHECKING:
    from torch import Tensor


def segmentation_loss(logits: Tensor, labels: Tensor, ignore: int, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy at the size of the labels.

    The mean is over all pixels, those without a label counting as zero: so a batch without any label has the loss
    0 and not NaN, and the mean over equal parts of a batch is that of the batch.

    Args:
        logits: [B, C, h, w] of any size, upsampled bilinearly.
        labels: [B, H, W] integers, class ids or `ignore`.
        ignore: label of the pixels that are left out.
        weights: [B, H, W] how much a pixel counts, None for 1; the weighted sum is divided by the number of pixels and
            not by the sum of the weights.

    Returns:
        A scalar in float32, at least 0.

    Raises:
        ShapeError: another number of images.

    Source: chongzhou96/MaskCLIP@245d31f, mmseg/models/losses/cross_entropy_loss.py and decode_heads/decode_head.py.
    """
    if len(logits) != len(labels):
        raise ShapeError(f"{len(logits)} maps of logits for {len(labels)} maps of labels")
    full = upsample(logits, (labels.shape[1], labels.shape[2]))
    if weights is None:
        total = F.cross_entropy(full, labels.long(), ignore_index=ignore, reduction="sum")
    else:
        each = F.cross_entropy(full, labels.long(), ignore_index=ignore, reduction="none")
        total = (each * weights).sum()
    return total / labels.numel()


def feature_loss(features: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference to the teacher's features of unit length, where the mask is set.

    Args:
        features: [B, D, h, w] of the student, as they are.
        teacher: [B, D, h', w'], of any length; taken with unit length.
        mask: [B, H, W] bool; both are upsampled bilinearly to its size.

    Returns:
        A scalar in float32; 0 where the mask is empty.

    Raises:
        ShapeError: features of different widths.

    Source: chongzhou96/MaskCLIP@245d31f, mmseg/models/decode_heads/maskclip_plus_head.py, forward_train.
    """
    if features.shape[1] != teacher.shape[1]:
        raise ShapeError(f"the student has {features.shape[1]} channels, the teacher {teacher.shape[1]}")
    size = (mask.shape[1], mask.shape[2])
    ours, theirs = upsample(features, size), upsample(F.normalize(teacher.float(), dim=1), size)
    # Summed and divided, since picking out pixels would copy both maps.
    distance = (ours - theirs).abs().mean(dim=1)  # [B, H, W]
    return (distance * mask).sum() / mask.sum().clamp(min=1)
