"""Random crops for training: one image and its label maps, cut, mirrored and distorted alike.

The order is the published one (chongzhou96/MaskCLIP@245d31f, configs/maskclip_plus/): resize, crop, flip, photometric
distortion, padding. Every number is drawn from the generator handed in, none from torch, so that equal generators
give equal crops in any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
from torchvision.transforms.v2 import functional as vision

from clipseg_cli.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor

REDRAWS = 10
"""How often a crop that is mostly one label is drawn again; the last one is taken as it is."""

BRIGHTNESS = 32
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18 / 180

_VALUES = torch.arange(256, dtype=torch.float32)


@dataclass(frozen=True)
class CropSpec:
    """What a crop looks like.

    Attributes:
        crop: S, its side in pixels.
        short_side, long_side: the base size is the largest with a short side and a long side of at most this,
            the ratio kept; a short side of 0 takes the image's own size.
        scale: range of the random factor on the base size.
        max_share: a crop is drawn again while one label has more than this share of its pixels, those to be
            ignored not counted.
        flip: probability of a mirrored crop.
        distort: vary brightness, contrast, saturation and hue.
        fill: RGB of the padding.
        ignore: label of the padding, and of pixels that count for nothing.
        mix: probability that things of another image are laid over a crop.
        background: label that is no thing.
    """

    crop: int
    short_side: int
    long_side: int
    scale: tuple[float, float]
    max_share: float
    flip: float = 0.5
    distort: bool = True
    fill: tuple[int, int, int] = (0, 0, 0)
    ignore: int = 255
    mix: float = 0.0
    background: int | None = None


class Crop(NamedTuple):
    """A square piece of an image.

    Attributes:
        image: uint8 [3, S, S].
        labels: int32 [K, S, S].
        padded: the resized image was smaller than the crop.
    """

    image: Tensor
    labels: Tensor
    padded: bool


def augment(image: Tensor, labels: Tensor, rng: np.random.Generator, spec: CropSpec) -> Crop:
    """One random crop.

    The image is resized linearly, with averaging only where it shrinks more than twofold (the published code
    never averages). A label is that of the pixel under the new pixel's centre; the published code takes the one
    under its corner, half a pixel off the image.

    Args:
        image: uint8 [3, H, W].
        labels: int32 [K, H, W] of at least -1; K maps that are cut alike, the first of which decides whether one
            label has too large a share.
        rng: every random number comes from here.
        spec: size, scale and chances.

    Raises:
        ShapeError: the labels have another size than the image.
    """
    if labels.shape[1:] != image.shape[1:]:
        raise ShapeError(f"labels of {list(labels.shape[1:])} for an image of {list(image.shape[1:])}")
    size = _random_size(image.shape[1], image.shape[2], rng, spec)
    top, left = _random_corner(labels[0], size, rng, spec)
    rows, columns = min(spec.crop, size[0]), min(spec.crop, size[1])
    skips_pixels = max(image.shape[1] / size[0], image.shape[2] / size[1]) > 2
    image = vision.resize(image, list(size), antialias=skips_pixels)
    image = image[:, top : top + rows, left : left + columns].contiguous()  # planes, for speed
    labels = _cut(labels, size, (top, left), spec.crop)
    if rng.random() < spec.flip:
        image, labels = vision.horizontal_flip(image), vision.horizontal_flip(labels)
    if spec.distort:
        image = distort(image, rng)
    padded = (rows, columns) != (spec.crop, spec.crop)
    if padded:
        border = [0, 0, spec.crop - columns, spec.crop - rows]  # left, top, right, bottom
        image = vision.pad(image, border, fill=list(spec.fill))
        labels = vision.pad(labels, border, fill=spec.ignore)
    return Crop(image, labels, padded)


def mix(crop: Crop, other: Crop, rng: np.random.Generator, spec: CropSpec) -> Crop:
    """Half of the classes of another crop, laid over this one: ClassMix (arXiv:2007.07936, section 3.1).

    Args:
        crop, other: of one size and with equally many label maps, the last of which says where the classes are.
        rng: every random number comes from here.
        spec: with the labels that are no classes of things.
    """
    labels = other.labels[-1]
    things = [c for c in labels.unique().tolist() if c >= 0 and c not in (spec.ignore, spec.background)]
    taken = rng.permutation(things)[: (len(things) + 1) // 2]
    mask = torch.isin(labels, torch.tensor(taken.tolist(), dtype=labels.dtype))  # [S, S]
    image = torch.where(mask, other.image, crop.image)
    return Crop(image, torch.where(mask, other.labels, crop.labels), crop.padded)


def distort(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary brightness (added), contrast (a factor on the values), saturation and hue, each with probability 1/2.

    Contrast comes before or after saturation and hue, with equal probability. It scales values from black, as
    published, where torchvision's `adjust_contrast` scales them from the mean grey.

    Args:
        image: uint8 [3, H, W].
        rng: every random number comes from here.

    Returns:
        uint8 [3, H, W].
    """
    if rng.random() < 0.5:
        image = _looked_up(image, _VALUES + int(rng.integers(-BRIGHTNESS, BRIGHTNESS + 1)))
    contrast_first = rng.random() < 0.5
    if contrast_first:
        image = _vary_contrast(image, rng)
    saturation = rng.uniform(*SATURATION) if rng.random() < 0.5 else 1.0
    turn = rng.uniform(-HUE, HUE) if rng.random() < 0.5 else 0.0
    if (saturation, turn) != (1.0, 0.0):
        image = recolour(image, saturation, turn)
    return image if contrast_first else _vary_contrast(image, rng)


def recolour(image: Tensor, saturation: float, turn: float) -> Tensor:
    """Change saturation and hue in HSV, and keep the value (the largest channel) of every pixel.

    In floating point, where OpenCV's own HSV of bytes rounds hue to 180 steps. The hue is that of torchvision's
    `adjust_hue` to a rounding, at a quarter of its time; torchvision's `adjust_saturation` keeps the luma instead of
    the value.

    Args:
        image: uint8 [3, H, W].
        saturation: factor of at least 0; no colour becomes more than pure.
        turn: added to the hue, in turns of the colour circle.

    Returns:
        uint8 [3, H, W].
    """
    hsv = cv2.cvtColor(image.permute(1, 2, 0).float().numpy(), cv2.COLOR_RGB2HSV)  # hue in degrees
    # OpenCV brings hues of up to two circles back, and none below 0.
    change = np.array([[1, 0, 0, 360 * (turn % 1)], [0, saturation, 0, 0], [0, 0, 1, 0]], np.float32)
    hsv = cv2.transform(hsv, change)
    np.minimum(hsv[..., 1], 1, out=hsv[..., 1])
    rgb = torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    return rgb.round_().to(torch.uint8).permute(2, 0, 1)


def _vary_contrast(image: Tensor, rng: np.random.Generator) -> Tensor:
    return _looked_up(image, _VALUES * rng.uniform(*CONTRAST)) if rng.random() < 0.5 else image


def _looked_up(image: Tensor, becomes: Tensor) -> Tensor:
    """uint8 [c, H, W] with each value replaced by what it `becomes`, [256], rounded towards zero."""
    table = becomes.clamp(0, 255).to(torch.uint8).numpy()
    rows = image.contiguous().view(-1, image.shape[-1])  # OpenCV has no images of planes
    return torch.from_numpy(cv2.LUT(rows.numpy(), table)).view_as(image)


def _random_size(height: int, width: int, rng: np.random.Generator, spec: CropSpec) -> tuple[int, int]:
    factor = rng.uniform(*spec.scale)
    if spec.short_side:
        long, short = int(spec.long_side * factor), int(spec.short_side * factor)
        factor = min(long / max(height, width), short / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def _random_corner(
    labels: Tensor, size: tuple[int, int], rng: np.random.Generator, spec: CropSpec
) -> tuple[int, int]:
    """(top, left) of a crop of the resized image in which no label has too large a share, if one is found."""
    spare = [max(side - spec.crop, 0) for side in size]
    corner = int(rng.integers(spare[0] + 1)), int(rng.integers(spare[1] + 1))
    if not any(spare) or _largest_share(labels, spec.ignore) == 1:
        return corner
    for _ in range(REDRAWS):
        if _largest_share(_cut(labels[None], size, corner, spec.crop), spec.ignore) <= spec.max_share:
            break
        corner = int(rng.integers(spare[0] + 1)), int(rng.integers(spare[1] + 1))
    return corner


def _largest_share(labels: Tensor, ignore: int) -> float:
    """Of one label among those that count; 1 where none does."""
    counts = torch.bincount(labels.flatten() + 1, minlength=ignore + 2)  # from 0: unlabelled is -1
    counts[ignore + 1] = 0
    total = int(counts.sum())
    return int(counts.max()) / total if total else 1.0


def _cut(labels: Tensor, size: tuple[int, int], corner: tuple[int, int], crop: int) -> Tensor:
    """The crop of the label maps [K, H, W] as if resized: [K, min(crop, h), min(crop, w)]."""
    rows, columns = (
        (2 * torch.arange(start, min(start + crop, new)) + 1) * old // (2 * new)
        for start, new, old in zip(corner, size, labels.shape[1:], strict=True)
    )
    rowwise = labels.index_select(1, rows)
    return rowwise.gather(2, columns.expand(*rowwise.shape[:2], -1))  # far quicker than indexing both at once
