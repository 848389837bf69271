"""Id maps that lie in a folder, made by any tool: `--regions folder=DIR`, NAME.png (8 or 16 bits) or NAME.npy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.errors import ImageError
from clipseg_cli.types import RegionMap, RegionSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipseg_cli.types import DecodedImage, RegionMaker, RegionTools

FAIL, PASS = "fail", "none"


def open_folder(tools: RegionTools, *, missing: str = FAIL) -> RegionMaker:
    """Id maps by the names of images.

    Args:
        tools: with the folder.
        missing: what becomes of an image whose map is missing, damaged, or of another size: it fails ("fail"), or goes
            without regions ("none").
    """
    folder = Path(tools.files).expanduser()

    def read(image: DecodedImage) -> RegionMap:
        size = (image.pixels.shape[0], image.pixels.shape[1])
        try:
            return RegionMap(tools.read_ids(folder, image.source.relative, size))
        except ImageError as error:
            if missing == FAIL:
                raise
            return RegionMap(np.zeros(size, np.int32), f"without regions: {error.message}")

    def make(images: Sequence[DecodedImage]) -> list[RegionMap]:
        return [read(image) for image in images]

    return make


REGIONS = RegionSource(
    open_folder,
    files="FOLDER",
    required=True,
    ranges={"missing": (FAIL, PASS)},
    summary="id maps from a folder, by the names of the images: PNG of 8 or 16 bits, or .npy; 0 is no region",
)
