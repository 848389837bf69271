"""Maps as short texts for a page that needs no library to read them: runs of equal values, levels, JPEG."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipseg_cli.outputs._canvas import resize_smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHABET = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
"""One letter for each of 64 levels, as in base64."""

QUALITY = 75
_BYTES = 5  # of the longest number, 32 bits in groups of 7


def shrunk(height: int, width: int, side: int) -> tuple[int, int]:
    """(H, W) of an image whose longer side is at most `side`; small ones keep their size."""
    scale = min(1.0, side / max(height, width, 1))
    return max(1, round(height * scale)), max(1, round(width * scale))


def nearest(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """[H, W] at another size (H, W), of any integer type: the pixel under each new centre."""
    if values.shape == size:
        return values
    rows, columns = (
        (np.arange(new) * 2 + 1) * old // (2 * new) for old, new in zip(values.shape, size, strict=True)
    )
    return np.asarray(values[rows[:, None], columns])


def runs_text(values: NDArray[Any]) -> str:
    """[H, W] of numbers from 0, row by row as (value, length), each in groups of 7 bits, low ones first; base64."""
    flat = np.ascontiguousarray(values).ravel().astype(np.uint32)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    pairs = np.stack([flat[starts], lengths.astype(np.uint32)], 1).ravel()
    return base64.b64encode(_grouped(pairs)).decode()


def _grouped(numbers: NDArray[np.uint32]) -> bytes:
    """Each number in as few bytes as it needs; the highest bit of a byte says that another one follows."""
    groups = numbers[:, None] >> (7 * np.arange(_BYTES, dtype=np.uint32)) & 127  # [n, 5]
    last = np.where(groups > 0, np.arange(_BYTES), 0).max(1, keepdims=True)
    used = np.arange(_BYTES) <= last
    groups |= (np.arange(_BYTES) < last).astype(np.uint32) << 7
    return bytes(groups[used].astype(np.uint8))


def levels_text(values: NDArray[np.float32], size: tuple[int, int]) -> str:
    """[H, W] in [0, 1] at a size (H, W), row by row, a letter of `ALPHABET` for each of 64 levels."""
    small = resize_smooth(np.clip(values, 0, 1).astype(np.float32), size)
    return ALPHABET[np.rint(small * 63).astype(np.uint8)].tobytes().decode()


def jpeg_text(pixels: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """An image uint8 [H, W, 3] at a size (H, W), as a JPEG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(resize_smooth(pixels, size)).save(buffer, "JPEG", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
