"""Confusion matrix and the scores that follow from it: integers until the last division.

Reference: chongzhou96/MaskCLIP@245d31f, mmseg/core/evaluation/metrics.py. The harmonic mean of seen and unseen
classes is that of ZS3Net (arXiv:1906.00817).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clipseg_cli.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Scores:
    """What a confusion matrix says. All rates lie in [0, 1]; NaN means that there is nothing to divide by.

    Attributes:
        iou: [C] float64, intersection over union; NaN where nobody labelled or predicted the class.
        accuracy: [C] float64, share of the labelled pixels that were found (recall).
        precision: [C] float64, share of the predicted pixels that are right.
        dice: [C] float64, 2 I / (P + L), which is F1 with 0 for a class that was missed altogether.
        fscore: [C] float64, harmonic mean of precision and accuracy as the reference divides it: NaN, not 0,
            where either is NaN or both are 0.
        labelled: [C] int64, scored pixels with this label.
        predicted: [C] int64, scored pixels with this prediction.
        miou: mean of `iou` over the classes whose union is not empty; one that is predicted but nowhere
            labelled counts as 0.
        mean_accuracy: mean of `accuracy` over the labelled classes (mAcc).
        pixel_accuracy: share of all scored pixels that are right (aAcc).
        miou_seen, miou_unseen: means over the two sides of a zero-shot split; None without a split.
        hiou: their harmonic mean; None without a split.
    """

    iou: Tensor
    accuracy: Tensor
    precision: Tensor
    dice: Tensor
    fscore: Tensor
    labelled: Tensor
    predicted: Tensor
    miou: float
    mean_accuracy: float
    pixel_accuracy: float
    miou_seen: float | None = None
    miou_unseen: float | None = None
    hiou: float | None = None


def confusion_matrix(pred: Tensor, label: Tensor, classes: int) -> Tensor:
    """Count the pixels of one image by truth and prediction; matrices of images or ranks add up exactly.

    Args:
        pred: [H, W] class ids of any integer type; a value outside 0..C-1 means "no class": wrong wherever
            there is a label, and part of no predicted area.
        label: [H, W] class ids 0..C-1 of any integer type; negative values are ignored.
        classes: C.

    Returns:
        [C, C + 1] int64 on the device of `label`: row = truth, column = prediction, last column = no class.

    Raises:
        ShapeError: the maps differ in size, or a label is C or above.
    """
    if pred.shape != label.shape or pred.ndim != 2:
        raise ShapeError(
            f"prediction {tuple(pred.shape)} and labels {tuple(label.shape)} must both be [H, W]"
        )
    device = label.device
    if device.type == "mps":  # whose bincount has no 64-bit integers
        pred, label = pred.cpu(), label.cpu()
    pred = pred.to(label.device)
    columns = classes + 1
    counts = torch.zeros((classes + 2) * columns, dtype=torch.int64, device=label.device)
    # Strips, since every step below holds 8 bytes a pixel; on a CPU they should stay in the cache.
    pixels = max(len(counts), 1 << 16 if label.device.type == "cpu" else 1 << 24)
    rows = max(1, pixels // max(1, label.shape[1]))
    for top in range(0, label.shape[0], rows):
        # Row 0 takes what is ignored and row C + 1 what cannot be, so that no pixel needs to be picked out.
        truth = label[top : top + rows].long().clamp(-1, classes).add_(1)
        found = pred[top : top + rows].long()
        found = found.masked_fill((found < 0) | (found > classes), classes)
        index = truth.mul_(columns).add_(found).flatten()
        counts += torch.bincount(index, minlength=len(counts))
    table = counts.view(classes + 2, columns)
    if wrong := int(table[-1].sum()):
        raise ShapeError(f"{wrong} pixels have a label outside 0 to {classes - 1}; ignored ones are negative")
    return table[1:-1].to(device, copy=True)


def score(confusion: Tensor, unseen: Sequence[int] = ()) -> Scores:
    """All scores of a confusion matrix.

    Args:
        confusion: [C, C + 1] integers, as `confusion_matrix` counts them, summed over the images.
        unseen: ids of the unseen classes of a zero-shot split; all others are seen. Empty: no split.

    Returns:
        Scores on the CPU. Without a single labelled pixel they are NaN.

    Raises:
        ShapeError: not such a matrix, or an id that is no class.
    """
    if confusion.ndim != 2 or confusion.shape[1] != confusion.shape[0] + 1:
        raise ShapeError(f"a confusion matrix is [C, C + 1], not {tuple(confusion.shape)}")
    classes = len(confusion)
    if strangers := sorted(i for i in set(unseen) if not 0 <= i < classes):
        raise ShapeError(f"class {strangers[0]} cannot be unseen: there are {classes} classes")
    table = confusion.cpu().long()  # float64, which the division needs, is not on every device
    right, labelled, predicted = table.diagonal(), table.sum(dim=1), table[:, :classes].sum(dim=0)
    iou = _divide(right, labelled + predicted - right)
    accuracy, precision = _divide(right, labelled), _divide(right, predicted)
    miou_seen = miou_unseen = hiou = None
    if unseen:
        is_unseen = torch.zeros(classes, dtype=torch.bool)
        is_unseen[list(unseen)] = True
        miou_seen, miou_unseen = _mean(iou[~is_unseen]), _mean(iou[is_unseen])
        hiou = harmonic_mean(miou_seen, miou_unseen)
    return Scores(
        iou=iou,
        accuracy=accuracy,
        precision=precision,
        dice=_divide(2 * right, labelled + predicted),
        fscore=2 * (precision * accuracy) / (precision + accuracy),
        labelled=labelled,
        predicted=predicted,
        miou=_mean(iou),
        mean_accuracy=_mean(accuracy),
        pixel_accuracy=float(_divide(right.sum(), labelled.sum())),
        miou_seen=miou_seen,
        miou_unseen=miou_unseen,
        hiou=hiou,
    )


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b) of two scores that are not negative; 0 where both are 0, NaN where either is NaN."""
    if math.isnan(a) or math.isnan(b):
        return math.nan
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def _divide(part: Tensor, whole: Tensor) -> Tensor:
    """Counts divided in float64, which holds them exactly up to 2^53; 0 / 0 is NaN."""
    return part.double() / whole.double()


def _mean(values: Tensor) -> float:
    """Mean of those that are not NaN; NaN where there are none."""
    return float(values.nanmean())
