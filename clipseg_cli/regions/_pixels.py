"""Images as the image processors of transformers take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def fitted(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An image [H, W, 3] whose long side is at most so many pixels; smaller ones as they are."""
    height, width = pixels.shape[:2]
    if max(height, width) <= side:
        return pixels
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def as_tensor(pixels: NDArray[np.uint8], side: int) -> Tensor:
    """The same as uint8 [3, h, w]; channels first, so that nobody guesses them from the size."""
    return torch.from_numpy(np.ascontiguousarray(fitted(pixels, side).transpose(2, 0, 1)))
