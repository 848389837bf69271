"""Colours: the PASCAL VOC palette of index images, and class colours for colour-blind people too."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BACKGROUND_COLOR = (96, 96, 96)
"""Neutral, and unlike every class colour."""

# The first seven are Okabe & Ito, "Color Universal Design" (2008), without black. The others were searched
# for: they maximise the smallest CIE Lab distance between any two of the twenty and the background, under
# protanopia and deuteranopia (Machado, Oliveira & Fernandes 2009, severity 1), and, weighted 0.45, normal
# sight.
_FIXED = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (86, 180, 233),
    (240, 228, 66),
    (204, 121, 167),
    (225, 30, 60),
    (150, 255, 120),
    (45, 30, 180),
    (105, 75, 0),
    (0, 255, 255),
    (120, 15, 45),
    (165, 135, 255),
    (210, 0, 180),
    (180, 195, 120),
    (90, 45, 120),
    (255, 195, 180),
    (0, 0, 255),
    (195, 30, 255),
)
_GOLDEN_ANGLE = np.pi * (3 - 5**0.5)
_CANDIDATES = 24  # for each generated colour; more spread it better and take longer


def voc_palette() -> NDArray[np.uint8]:
    """The palette of PASCAL VOC label images: uint8 RGB [256, 3].

    Bits 0, 1, 2 of the id go to the highest bit of red, green, blue, bits 3, 4, 5 to the next, and so on
    (VOCdevkit, VOCcode/VOClabelcolormap.m). 0 is black, 255 (ignore) is (224, 224, 192).
    """
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for channel in range(3):
        for bit in range(3):
            palette[:, channel] |= ((ids >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def class_colors(n: int, background: int | None = None) -> NDArray[np.uint8]:
    """Distinct colours for `n` classes, the same on every run and whatever `n` is.

    Args:
        n: number of classes, the background included.
        background: id that gets BACKGROUND_COLOR; the other classes take the colours in order.

    Returns:
        uint8 RGB [n, 3]; no two rows are equal.
    """
    things = n - (background is not None)
    colors = [*_FIXED[:things], *_generated(max(0, things - len(_FIXED)))]
    if background is not None:
        colors.insert(background, BACKGROUND_COLOR)
    return np.array(colors, np.uint8).reshape(n, 3)


@lru_cache(maxsize=8)
def _generated(n: int) -> tuple[tuple[int, int, int], ...]:
    """`n` more colours: of some candidates for each, the one farthest in Lab from all before it.

    The candidates turn by the golden angle in hue, and walk over lightness and saturation at unrelated rates.
    """
    known = np.empty((len(_FIXED) + 1 + n, 3))
    known[: len(_FIXED) + 1] = srgb_to_lab(np.array([*_FIXED, BACKGROUND_COLOR]))
    chosen = []
    for i in range(n):
        step = np.arange(i * _CANDIDATES, (i + 1) * _CANDIDATES)
        candidates = _hsv_to_srgb(
            hue=step * _GOLDEN_ANGLE / (2 * np.pi) % 1,
            saturation=0.35 + 0.65 * (step * 0.7548776662 % 1),  # the plastic number's pair of rates
            value=0.3 + 0.7 * (step * 0.5698402910 % 1),
        )
        lab = srgb_to_lab(candidates)
        seen = known[: len(_FIXED) + 1 + i]
        best = int(((lab[:, None] - seen) ** 2).sum(-1).min(1).argmax())
        known[len(_FIXED) + 1 + i] = lab[best]
        red, green, blue = candidates[best].tolist()
        chosen.append((red, green, blue))
    return tuple(chosen)


def srgb_to_lab(rgb: NDArray[np.integer]) -> NDArray[np.float64]:
    """CIE L*a*b* under D65 of 8-bit sRGB: [..., 3] -> [..., 3]."""
    v = np.asarray(rgb, np.float64) / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _hsv_to_srgb(
    hue: NDArray[np.floating], saturation: NDArray[np.floating], value: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """Hexcone HSV in [0, 1], each [n], to uint8 [n, 3]."""
    k = (np.array([5.0, 3.0, 1.0]) + 6 * hue[:, None]) % 6
    rgb = value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(k, 4 - k), 0, 1))
    return np.asarray(np.round(255 * rgb), np.uint8)


def hex_color(rgb: NDArray[np.uint8]) -> str:
    """`#rrggbb` of one colour [3]."""
    return "#" + bytes(rgb.tolist()).hex()
