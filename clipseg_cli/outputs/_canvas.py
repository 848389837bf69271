"""What images share: a size worth looking at, class colours over them, and JPEG bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np

from clipseg_cli.outputs._own import MARK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.uint8] | NDArray[np.uint16]

MAX_SIDE = 2048
"""Larger images are shown smaller: nobody sees the difference and 12 megapixels take seconds."""

MIN_SIDE = 640
"""Smaller images are enlarged by a whole factor, so that the words beside them do not dwarf them."""

OPACITY = 140 / 256
"""Of class colours over the image."""

_BACKGROUND = 30 / 140  # of that

_JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, 92),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)
_COMMENT = b"\xff\xfe" + (2 + len(MARK)).to_bytes(2, "big") + MARK.encode()
"""The segment of a JPEG that holds our mark."""

Pixels = TypeVar("Pixels", np.uint8, np.float32)


def show_size(height: int, width: int) -> tuple[int, int]:
    """(H, W) at which an image is shown: between MIN_SIDE and MAX_SIDE, aspect kept."""
    long = max(height, width)
    if long < MIN_SIDE:
        factor = -(-MIN_SIDE // long)
        return height * factor, width * factor
    scale = min(1.0, MAX_SIDE / long)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_smooth(values: NDArray[Pixels], size: tuple[int, int]) -> NDArray[Pixels]:
    """Pixels or confidences [H, W(, 3)] resized to `size` (H, W) for the eye."""
    if values.shape[:2] == size:
        return values
    resized = cv2.resize(values, (size[1], size[0]), interpolation=_smooth(values.shape[0], size[0]))
    return np.asarray(resized, values.dtype)


def place_smooth(pixels: NDArray[np.uint8], place: NDArray[np.uint8]) -> None:
    """`resize_smooth`, into a part [H, W, 3] of a larger image."""
    height, width = place.shape[:2]
    if pixels.shape == place.shape:
        place[:] = pixels
    else:
        cv2.resize(pixels, (width, height), dst=place, interpolation=_smooth(pixels.shape[0], height))


def _smooth(before: int, after: int) -> int:
    """OpenCV's way to resize between two heights."""
    return cv2.INTER_AREA if after < before else cv2.INTER_LINEAR


def resize_labels(labels: Labels, size: tuple[int, int]) -> Labels:
    """Label ids [H, W] resized to `size` (H, W) without mixing them."""
    if labels.shape == size:
        return labels
    shown: Labels = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)  # type: ignore[assignment]
    return shown


def tint(
    pixels: NDArray[np.uint8],
    labels: Labels,
    colors: NDArray[np.uint8],
    background: int | None,
    opacity: float = OPACITY,
) -> NDArray[np.uint8]:
    """Blend class colours into an image, with contours in the full colour of the class inside them.

    Args:
        pixels: uint8 [H, W, 3].
        labels: [H, W].
        colors: uint8 [C, 3].
        background: id that is left almost as it is, without contour; or None.
        opacity: of the colours, from 0 to 1.

    Returns:
        uint8 [H, W, 3].
    """
    painted = _paint(labels, colors)
    tinted = _blend(pixels, painted, opacity)
    line = 1 + max(labels.shape) // 900  # pixels on either side
    kernel = np.ones((2 * line + 1, 2 * line + 1), np.uint8)
    edge = cv2.compare(cv2.dilate(labels, kernel), cv2.erode(labels, kernel), cv2.CMP_NE)
    cv2.copyTo(painted, edge, tinted)
    if background is not None:
        quiet = _blend(pixels, painted, opacity * _BACKGROUND)
        cv2.copyTo(quiet, (labels == background).view(np.uint8), tinted)
    return tinted


def _paint(labels: Labels, colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colour of every label, uint8 [H, W, 3]."""
    if labels.dtype != np.uint8:
        return np.take(colors, labels, axis=0)
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(colors), 0] = colors[:256]
    return np.asarray(cv2.applyColorMap(labels, table), np.uint8)  # numpy takes more than ten times as long


def _blend(under: NDArray[np.uint8], over: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """A mixture with so much of `over`: uint8 [H, W, 3]."""
    return np.asarray(cv2.addWeighted(under, 1 - share, over, share, 0), np.uint8)


def font_size(height: int, width: int) -> int:
    """Height of letters, in pixels, that reads well beside an image of this size."""
    return min(34, max(16, max(height, width) // 45))


def jpeg_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """JPEG at quality 92 with our mark, and full colour resolution so that coloured edges and letters stay sharp.

    Args:
        pixels: uint8 RGB [H, W, 3].
    """
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), _JPEG)
    data = encoded.tobytes()
    begun = 4 + int.from_bytes(data[4:6], "big")  # the marks of the file and of JFIF, and what JFIF says
    return data[:begun] + _COMMENT + data[begun:]
