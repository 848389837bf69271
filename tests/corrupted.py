"""Images, and corruptions of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from clipseg_cli.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

NAMES = list(CORRUPTIONS)
RANDOM = ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "spatter"]
severities = pytest.mark.parametrize("severity", SEVERITIES)


def flat(value: int, height: int = 300, width: int = 400) -> Pixels:
    return np.full((height, width, 3), value, np.uint8)


def spoil(pixels: Pixels, name: str, severity: int, seed: int = 0, key: str = "a.jpg") -> Pixels:
    return corrupt(pixels, name, severity, seed=seed, key=key)


@pytest.fixture(scope="module", name="scene")
def lit_scene() -> Pixels:
    """Sky, hills and fine texture: as bright and as smooth as photographs are."""
    rng = np.random.default_rng(5)
    field = np.zeros((192, 256, 3), np.float32)
    for side in (3, 6, 12, 24, 48, 96):  # an amplitude that falls with the frequency, as in photographs
        octave = rng.normal(size=(side, side, 3)).astype(np.float32)
        field += cv2.resize(octave, (256, 192), interpolation=cv2.INTER_CUBIC) * (90 / side**0.7)
    field += np.linspace(190, 70, 192, dtype=np.float32)[:, None, None]
    cv2.circle(field, (180, 60), 30, (235, 200, 60), -1)
    cv2.rectangle(field, (30, 90), (110, 160), (40, 60, 150), -1)
    return np.clip(field, 0, 255).astype(np.uint8)
