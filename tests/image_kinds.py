"""Images of many kinds, as files."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from clipseg_cli.types import ImageSource

UPRIGHT = np.zeros((24, 40, 3), np.uint8)


UPRIGHT[:12, :20] = (220, 30, 30)


UPRIGHT[12:, :20] = (30, 200, 30)


UPRIGHT[12:, 20:] = (30, 30, 210)


def source(path: Path) -> ImageSource:
    return ImageSource(path, PurePosixPath(path.name))


def save(path: Path, array: np.ndarray = UPRIGHT, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array)).save(path, **options)
    return path
