"""Superpixels of scikit-image: groups of neighbouring pixels that look alike. No weights, no network.

Felzenszwalb and Huttenlocher, Efficient graph-based image segmentation (IJCV 2004); SLIC: Achanta et al. (TPAMI 2012).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.regions._each import each
from clipseg_cli.regions._pixels import fitted
from clipseg_cli.types import RegionSource

if TYPE_CHECKING:
    from numpy.typing import NDArray


def superpixels(
    pixels: NDArray[np.uint8],
    *,
    algorithm: str = "felzenszwalb",
    scale: float = 150.0,
    sigma: float = 0.5,
    min_size: int = 30,
    segments: int = 300,
    compactness: float = 10.0,
    side: int = 640,
) -> NDArray[np.int32]:
    """An id map that covers the whole image; every pixel lies in a region.

    Args:
        pixels: uint8 RGB [H, W, 3].
        algorithm: "felzenszwalb" follows edges with regions of any size; "slic" makes compact ones of about one size.
        scale: felzenszwalb: larger regions.
        sigma: felzenszwalb: width of the smoothing beforehand, in pixels.
        min_size: felzenszwalb: pixels of the smallest region.
        segments: slic: about so many regions.
        compactness: slic: how much nearness counts beside colour.
        side: larger images are looked at with this long side, so that regions and time do not grow with the camera.

    Returns:
        int32 [h, w], ids from 1.
    """
    from skimage.segmentation import felzenszwalb, slic

    pixels = fitted(pixels, side)
    if min(pixels.shape[:2]) < 3:  # too thin for either
        return np.ones(pixels.shape[:2], np.int32)
    if algorithm == "slic":
        found = slic(pixels, n_segments=segments, compactness=compactness, start_label=1)
    else:
        found = felzenszwalb(pixels, scale=scale, sigma=sigma, min_size=min_size) + 1
    return np.asarray(found, np.int32)


REGIONS = RegionSource(
    each(superpixels),
    packages=("skimage",),
    ranges={
        "algorithm": ("felzenszwalb", "slic"),
        "scale": (0.01, 100_000),
        "sigma": (0, 100),
        "min_size": (1, 1_000_000),
        "segments": (1, 60_000),
        "compactness": (0.001, 10_000),
        "side": (16, 16_384),
    },
    cost=0.4,
    summary="groups of neighbouring pixels that look alike (Felzenszwalb, SLIC); no weights",
    licence="BSD-3-Clause",
)
