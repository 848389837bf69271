"""How much a score depends on the choice of images: the bootstrap (Efron 1979, Annals of Statistics 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95
_AT_ONCE = 64


def bootstrap_scores(
    right: NDArray[np.int64],
    labelled: NDArray[np.int64],
    predicted: NDArray[np.int64],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of mIoU and pixel accuracy over images drawn again, as many as there are, with replacement.

    In each draw pixels are added up over its images, as for the score itself; a class that occurs in none of them is
    left out of the mean of that draw.

    Args:
        right: [N, C] pixels of each image and class that are labelled and predicted so.
        labelled, predicted: [N, C] pixels that are labelled, and that are predicted so.
        draws: how often.
        seed: of the generator.
        level: share of the draws between the two ends.

    Returns:
        "mIoU" and "pixel_accuracy" -> (low, high) in [0, 1]; NaN where no draw has a labelled pixel.
    """
    count = len(right)
    rng = np.random.default_rng(seed)
    mious, accuracies = [], []
    for first in range(0, draws, _AT_ONCE):
        many = min(_AT_ONCE, draws - first)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=many)  # [draws, N]
        r, own, said = (drawn @ each for each in (right, labelled, predicted))  # [draws, C]
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = r / (own + said - r)
            there = np.isfinite(iou)
            mious.append(np.where(there, iou, 0).sum(1) / there.sum(1))
            accuracies.append(r.sum(1) / own.sum(1))
    ends = [50 * (1 - level), 50 * (1 + level)]
    found = {}
    for name, parts in (("mIoU", mious), ("pixel_accuracy", accuracies)):
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, ends).tolist() if len(values) else (float("nan"), float("nan"))
        found[name] = (low, high)
    return found
