"""The eight corruptions of MaskCLIP's robustness experiment (arXiv:2112.01071), as ImageNet-C defines them.

Definitions: arXiv:1903.12261 and hendrycks/robustness@e0377d4, ImageNet-C/create_c/make_imagenet_c.py; written
anew with NumPy, OpenCV and Pillow. x is the image scaled to [0, 1], c a parameter of the severity.

ImageNet-C corrupts crops of 224x224 and stores them as JPEG of quality 85. Here the image keeps its own size,
as in MaskCLIP, whose test pipeline corrupts before it resizes: sigmas, radii and kernels are in pixels of that
image, so a blur weighs less on a large one. Nothing is stored in between, and values are rounded, where the
original cuts fractions off.

The noise is a function of the seed, the image's key, the corruption and the severity alone: neither the order
of the images nor threads nor a shard change it, though another release of NumPy may. Everything here may run
in several threads at once.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from clipseg_cli.errors import ShapeError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Values = tuple[float, ...]

SEVERITIES = (1, 2, 3, 4, 5)
ALL = "all"

_BAND = 1 << 20  # values worked on at once; a 12-megapixel image of floats would be 144 MB
_WATER, _MUD = (175, 238, 238), (63, 42, 20)  # RGB of spatter: pale turquoise, brown


@dataclass(frozen=True)
class Corruption:
    """One way to spoil an image.

    Attributes:
        apply: (pixels uint8 [H, W, 3], parameters, generator) -> uint8 [H, W, 3]; leaves `pixels` alone.
        parameters: those of severity 1 to 5, in this order.
        random: whether the seed and the key matter.
        summary: one line for help texts.
    """

    apply: Callable[[Pixels, Values, Generator], Pixels]
    parameters: tuple[Values, ...]
    random: bool
    summary: str


def corrupt(pixels: Pixels, name: str, severity: int, *, seed: int, key: str) -> Pixels:
    """Corrupt one image, in its native size.

    Args:
        pixels: uint8 RGB [H, W, 3], any size from 1x1; not changed.
        name: one of CORRUPTIONS.
        severity: 1 to 5.
        seed: of the whole run.
        key: the image's name within its data set, with '/' on every system.

    Returns:
        uint8 RGB [H, W, 3], a new array; the same for the same arguments.

    Raises:
        UsageError: unknown name, or a severity outside 1 to 5.
        ShapeError: `pixels` is something else.
    """
    if name not in CORRUPTIONS:
        raise UsageError(f"unknown corruption '{name}'", hint=did_you_mean(name, CORRUPTIONS))
    if severity not in SEVERITIES:
        raise UsageError(f"severity {severity}: there are 1 to 5", hint="1 is mild, 5 is strong")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ShapeError(f"expected uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    corruption = CORRUPTIONS[name]
    # The key comes last, so that no two calls spell the same text; file names may hold lone surrogates.
    words = f"{seed}\0{name}\0{severity}\0{key}".encode("utf-8", "surrogatepass")
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(words).digest(), "big"))
    return corruption.apply(pixels, corruption.parameters[severity - 1], generator)


def parse_corruptions(names: Sequence[str]) -> tuple[str, ...]:
    """Names as a user gives them, each perhaps a comma list, "all" for all eight.

    Returns:
        Names in the order of CORRUPTIONS, each once.

    Raises:
        UsageError: there is no such corruption; the hint names the nearest.
    """
    words = {word for name in names for part in name.split(",") if (word := part.strip())}
    for word in sorted(words - {ALL, *CORRUPTIONS}):
        raise UsageError(f"unknown corruption '{word}'", hint=did_you_mean(word, [*CORRUPTIONS, ALL]))
    return tuple(name for name in CORRUPTIONS if ALL in words or name in words)


def gaussian_noise(pixels: Pixels, values: Values, generator: Generator) -> Pixels:
    """Add noise: x + c n, n ~ N(0, 1) drawn for every value of every channel."""
    (scale,) = values
    out = np.empty_like(pixels)
    for rows in _bands(pixels):
        noisy = generator.standard_normal(pixels[rows].shape, dtype=np.float32)
        noisy *= 255 * scale
        noisy += pixels[rows]
        out[rows] = _to_uint8(noisy)
    return out


def shot_noise(pixels: Pixels, values: Values, generator: Generator) -> Pixels:
    """Poisson(c x) / c: photons counted, c of them for white. Mean x, variance x / c."""
    (photons,) = values
    out = np.empty_like(pixels)
    for rows in _bands(pixels):
        counts = generator.poisson(pixels[rows] * (photons / 255)).astype(np.float32)
        counts *= 255 / photons
        out[rows] = _to_uint8(counts)
    return out


def impulse_noise(pixels: Pixels, values: Values, generator: Generator) -> Pixels:
    """Salt and pepper: a share c of all values, in each channel by itself, becomes 0 or 255 with equal chance."""
    (amount,) = values
    out: Pixels = pixels.copy()
    for rows in _bands(pixels):
        chance = generator.random(pixels[rows].shape, dtype=np.float32)
        out[rows][chance < amount] = 255
        out[rows][chance < amount / 2] = 0
    return out


def speckle_noise(pixels: Pixels, values: Values, generator: Generator) -> Pixels:
    """Add noise in proportion to the light: x + c n x, n ~ N(0, 1) drawn for every value of every channel."""
    (scale,) = values
    out = np.empty_like(pixels)
    for rows in _bands(pixels):
        noisy = generator.standard_normal(pixels[rows].shape, dtype=np.float32)
        noisy *= scale
        noisy += 1
        noisy *= pixels[rows]
        out[rows] = _to_uint8(noisy)
    return out


def gaussian_blur(pixels: Pixels, values: Values, _: Generator) -> Pixels:
    """Each channel convolved with a Gaussian of c pixels, cut off after four sigmas; edges are continued."""
    (sigma,) = values
    return _per_channel(pixels, lambda channel: _smooth(channel, sigma))


def defocus_blur(pixels: Pixels, values: Values, _: Generator) -> Pixels:
    """Each channel convolved with a disk of radius c[0] pixels, its rim softened by c[1]; edges are mirrored.

    The softening mirrors at the border of the kernel, which radii 8 and 10 touch: their kernels sum to 1.013 and
    1.011, so the two strongest severities brighten by a percent. That is ImageNet-C's and kept.
    """
    radius, softening = values
    steps = np.arange(-max(8, radius), max(8, radius) + 1, dtype=np.float32)
    disk = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float32)
    disk /= disk.sum()
    kernel = cv2.GaussianBlur(disk, (3, 3) if radius <= 8 else (5, 5), softening)
    return _per_channel(pixels, lambda channel: np.asarray(cv2.filter2D(channel, -1, kernel), np.float32))


def spatter(pixels: Pixels, values: Values, generator: Generator) -> Pixels:
    """Drops of water (severity 1 to 3) or mud (4, 5) on the lens.

    Liquid is noise N(c[0], c[1]) smoothed by c[2] pixels, where it exceeds c[3]. See `_water` and `_mud`; drops
    are as large in pixels on every image. Mud changes a dark image less than water does.
    """
    mean, deviation, smoothing, threshold, strength, is_mud = values
    liquid = generator.standard_normal(pixels.shape[:2], dtype=np.float32)
    liquid *= deviation
    liquid += mean
    liquid = _smooth(liquid, smoothing)
    liquid[liquid < threshold] = 0
    return _mud(pixels, liquid, strength) if is_mud else _water(pixels, liquid, strength)


def _water(pixels: Pixels, liquid: NDArray[np.float32], strength: float) -> Pixels:
    """Add light: x + m water, with m in [0, strength] the product of the liquid's depth [H, W] and relief.

    The relief: distance to the nearest edge of a drop, up to 20 pixels, softened, equalised over the image and
    lit from one corner by an emboss filter. m is scaled to its largest value in the image; where there is no
    drop at all, as on tiny images, nothing changes (the original divides by zero).
    """
    depth = (liquid * 255).astype(np.uint8)
    relief = cv2.distanceTransform(255 - cv2.Canny(depth, 50, 150), cv2.DIST_L2, 5)
    relief = cv2.blur(np.minimum(relief, 20), (3, 3)).astype(np.uint8)
    emboss = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)
    relief = cv2.filter2D(cv2.equalizeHist(relief), cv2.CV_8U, emboss)
    mask = np.multiply(depth, cv2.blur(relief, (3, 3)), dtype=np.float32)
    mask *= strength / max(float(mask.max()), 1.0)
    return _pour(pixels, mask, _WATER, covers=False)


def _mud(pixels: Pixels, liquid: NDArray[np.float32], smoothing: float) -> Pixels:
    """(1 - m) x + m mud, with m the smoothed area of the liquid [H, W] where that is at least 0.8, else 0."""
    mask = _smooth((liquid > 0).astype(np.float32), smoothing)
    mask[mask < 0.8] = 0
    return _pour(pixels, mask, _MUD, covers=True)


def _pour(pixels: Pixels, mask: NDArray[np.float32], color: tuple[int, int, int], *, covers: bool) -> Pixels:
    """Image [H, W, 3] plus mask [H, W] times colour; what covers takes that share of the image away."""
    out = np.empty_like(pixels)
    for c, value in enumerate(color):
        channel = pixels[..., c].astype(np.float32)
        if covers:
            channel -= channel * mask
        channel += mask * np.float32(value)
        out[..., c] = _to_uint8(channel)
    return out


def jpeg_compression(pixels: Pixels, values: Values, _: Generator) -> Pixels:
    """Written as JPEG of quality c with Pillow's other defaults (colour at half resolution), and read again."""
    (quality,) = values
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(quality))
    with Image.open(buffer, formats=("JPEG",)) as image:
        return np.array(image)


def _smooth(channel: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian [H, W], as wide and with such borders as scikit-image's, which ImageNet-C uses."""
    side = 2 * int(4 * sigma + 0.5) + 1
    smoothed = cv2.GaussianBlur(channel, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(smoothed, np.float32)


def _per_channel(pixels: Pixels, blur: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Pixels:
    """`blur` of each channel as float32 [H, W]; in 8 bits OpenCV would round the kernels too."""
    out = np.empty_like(pixels)
    for c in range(3):
        out[..., c] = _to_uint8(blur(pixels[..., c].astype(np.float32)))
    return out


def _bands(pixels: Pixels) -> Iterator[slice]:
    """Slices of rows that hold about _BAND values each."""
    height = max(1, _BAND // pixels[0].size)
    yield from (slice(top, top + height) for top in range(0, len(pixels), height))


def _to_uint8(values: NDArray[np.float32]) -> Pixels:
    """Rounded and clipped to [0, 255]; overwrites `values`."""
    np.rint(values, out=values)
    np.clip(values, 0, 255, out=values)
    return values.astype(np.uint8)


def _each(*values: float) -> tuple[Values, ...]:
    return tuple((value,) for value in values)


_DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
_SPATTER = (
    (0.65, 0.3, 4, 0.69, 0.6, 0),
    (0.65, 0.3, 3, 0.68, 0.6, 0),
    (0.65, 0.3, 2, 0.68, 0.5, 0),
    (0.65, 0.3, 1, 0.65, 1.5, 1),
    (0.67, 0.4, 1, 0.65, 1.5, 1),
)
CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": Corruption(gaussian_noise, _each(0.08, 0.12, 0.18, 0.26, 0.38), True, "a hot sensor"),
    "shot_noise": Corruption(shot_noise, _each(60, 25, 12, 5, 3), True, "few photons"),
    "impulse_noise": Corruption(impulse_noise, _each(0.03, 0.06, 0.09, 0.17, 0.27), True, "salt and pepper"),
    "speckle_noise": Corruption(speckle_noise, _each(0.15, 0.2, 0.35, 0.45, 0.6), True, "grainy light"),
    "gaussian_blur": Corruption(gaussian_blur, _each(1, 2, 3, 4, 6), False, "a soft image"),
    "defocus_blur": Corruption(defocus_blur, _DEFOCUS, False, "out of focus"),
    "spatter": Corruption(spatter, _SPATTER, True, "water, then mud, on the lens"),
    "jpeg_compression": Corruption(jpeg_compression, _each(25, 18, 15, 10, 7), False, "strong compression"),
}
"""By name, in the order of MaskCLIP's configurations."""
