"""What painters work with: smooth noise, random colours, blends."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Field = NDArray[np.float32]
Rng = np.random.Generator


def noise(rng: Rng, h: int, w: int, cells: float, *, stretch: float = 1.0, octaves: int = 3) -> Field:
    """Smooth noise in 0..1 with about `cells` bumps across the shorter side; `stretch` > 1 widens them."""
    total = np.zeros((h, w), np.float32)
    weight = 1.0
    for _ in range(octaves):
        rows = int(np.clip(cells * h / min(h, w) * np.sqrt(stretch), 2, h))
        cols = int(np.clip(cells * w / min(h, w) / np.sqrt(stretch), 2, w))
        grid = rng.random((rows, cols), dtype=np.float32)
        total += weight * cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2.1, weight * 0.5
    low, high = float(total.min()), float(total.max())
    return np.asarray((total - low) / max(high - low, 1e-6), np.float32)


def colour(rng: Rng, hue: tuple[float, float], sat: tuple[float, float], val: tuple[float, float]) -> Field:
    """A random RGB colour, 0..255; hue in degrees 0..360, saturation and value 0..1."""
    hsv = np.array([[[rng.uniform(*hue) % 360, rng.uniform(*sat), rng.uniform(*val)]]], np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255, np.float32)


def blend(a: Field, b: Field, t: Field) -> Field:
    """Mix two colours (or images) by a map t in 0..1."""
    return a + (b - a) * t[..., None]


def finish(image: Field) -> Image:
    """Clip to bytes."""
    return np.clip(image, 0, 255).astype(np.uint8)


def ramp(h: int, w: int) -> Field:
    """0 at the top to 1 at the bottom."""
    return np.repeat(np.linspace(0, 1, h, dtype=np.float32)[:, None], w, axis=1)
