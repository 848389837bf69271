"""Images in: find, decode to upright 8-bit RGB, resize. The only home of (width, height) order.

Decoding is Pillow's, exact (no draft mode) and without colour management: ICC profiles are ignored, as the
published segmentation code does. Everything here may run in several threads at once.
"""

from __future__ import annotations

import io
import sys
import threading
import warnings
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL import TiffImagePlugin as Tiff

from clipseg_cli.data.addresses import open_address
from clipseg_cli.data.geotiff import place_notes
from clipseg_cli.data.opening import large_ones_alone, open_image
from clipseg_cli.errors import ImageError
from clipseg_cli.types import DecodedImage, FrameSource, ImageSource, RemoteSource
from clipseg_cli.utils.files import open_input

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO, Any

    from numpy.typing import NDArray

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_READABLE = "JPEG, PNG, WebP, BMP, TIFF and GIF can be read; convert other kinds first"

# What a stream may bring before it is refused: 16-bit RGBA without compression, and metadata.
_MAX_PIXEL_BYTES, _MAX_EXTRA_BYTES = 8, 64 << 20

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_ON_ITS_SIDE = 5
_FILTER_LOCK = threading.Lock()


def read_image(source: ImageSource, *, max_megapixels: float = 100.0) -> DecodedImage:
    """Decode one image to upright 8-bit RGB.

    EXIF orientation is applied; transparency is laid on white; grey, palette, 1-bit and CMYK become RGB;
    16-bit grey is divided by 257, wider grey is scaled as its note says; of an animation the first frame is
    taken, which a note says too.

    Args:
        source: a file, an address, or standard input, which is read to its end.
        max_megapixels: larger images are refused before a pixel is decoded.

    Raises:
        ImageError: unreadable, empty, not an image, damaged, or too large.
    """
    if isinstance(source, FrameSource):
        return _decode_frame(source, max_megapixels)
    _silence_pillow()
    if isinstance(source, RemoteSource):
        with open_address(source.address, ImageError) as file:
            data = _take(file, source, max_megapixels)
        return decode_image(data, source, max_megapixels)
    try:
        if source.path is None:
            return decode_image(_take(sys.stdin.buffer, source, max_megapixels), source, max_megapixels)
        with open_input(source.path) as file:
            if file.seekable():
                return decode_image(file, source, max_megapixels)
            data = _take(file, source, max_megapixels)
            if not data.getbuffer() and source.path.is_fifo():
                raise ImageError(f"{source}: a pipe that nobody writes to")
            return decode_image(data, source, max_megapixels)
    except IsADirectoryError as error:
        raise ImageError(f"{source}: is a folder, not an image") from error
    except OSError as error:
        raise ImageError(f"{source}: cannot be read: {error.strerror or error}") from error


def _decode_frame(source: FrameSource, max_megapixels: float) -> DecodedImage:
    height, width = source.size
    if height * width > max_megapixels * 1e6:
        raise ImageError(
            f"{source.path}: frames of {width}x{height} pixels are more than {max_megapixels:g} megapixels",
            hint="raise --max-megapixels",
            image=str(source.path),
        )
    return DecodedImage(source, source.read(source.index))


def target_size(
    height: int, width: int, *, short_side: int | None, long_side: int | None = None, multiple: int = 1
) -> tuple[int, int]:
    """Size after the resize of mmsegmentation: as large as both limits allow, aspect kept.

    Args:
        height, width: of the image.
        short_side: wanted; None keeps the size, whatever `long_side` is.
        long_side: upper limit; None for no limit.
        multiple: both sides are rounded to the nearest multiple of it, but at least one; 1 gives exactly
            mmcv.rescale_size, int(side * scale + 0.5).

    Returns:
        (H, W), each at least `multiple`.
    """
    scale = 1.0
    if short_side is not None:
        scale = short_side / min(height, width)
        if long_side is not None:
            scale = min(scale, long_side / max(height, width))
    rows, columns = (max(1, int(side * scale / multiple + 0.5)) * multiple for side in (height, width))
    return rows, columns


def resize_image(
    pixels: NDArray[np.uint8], size: tuple[int, int], *, antialias: bool = True
) -> NDArray[np.uint8]:
    """Resize with OpenCV; the image itself if it has that size already.

    Args:
        pixels: uint8 [H, W, 3].
        size: wanted (H, W).
        antialias: average areas where a side shrinks more than twofold, since linear interpolation would skip
            pixels; False is always linear, as the published code resizes.

    Returns:
        uint8 [*size, 3].
    """
    (rows, columns), (height, width) = size, pixels.shape[:2]
    if (rows, columns) == (height, width):
        return pixels
    if antialias and max(height / rows, width / columns) > 2:
        # INTER_AREA turns into plain interpolation once one side grows, so shrinking comes first, alone.
        shrunk = (min(columns, width), min(rows, height))
        pixels = np.asarray(cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_LINEAR), np.uint8)


def square_input(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A square patch as whole-image CLIP takes it: Pillow's bicubic, with antialias.

    Other libraries differ by one step of brightness here and there, which moves a cosine by 1e-3.

    Args:
        pixels: RGB [h, w, 3].
        side: in pixels.

    Returns:
        RGB [side, side, 3].
    """
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def resize_labels(labels: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
    """Ground truth [H, W] at another size (H, W), as Pillow's NEAREST: the pixel under each new centre."""
    if labels.shape == size:
        return labels
    resized = Image.fromarray(labels).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.array(resized, dtype=np.int32)  # a copy, since a view of a Pillow image cannot be written to


def resize_nearest(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Labels or scores [H, W] repeated to `size` (H, W) without mixing them; the array itself if it fits.

    OpenCV's INTER_NEAREST: output pixel i takes input pixel floor(i * source / target).
    """
    if values.shape == size:
        return values
    return np.asarray(cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), values.dtype)


def _take(stream: IO[bytes], source: ImageSource, max_megapixels: float) -> io.BytesIO:
    """All bytes of a stream, which may be endless.

    Raises:
        ImageError: more than an image within the limit can have.
    """
    limit = int(max_megapixels * 1e6) * _MAX_PIXEL_BYTES + _MAX_EXTRA_BYTES
    taken = io.BytesIO()
    while part := stream.read(1 << 20):
        taken.write(part)
        if taken.tell() > limit:
            raise ImageError(
                f"{source}: more than {limit // 2**20:,} MiB: too large for {max_megapixels:g} megapixels",
                hint="if this is an image, raise the limit with --max-megapixels",
            )
    taken.seek(0)
    return taken


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image as it is read, upright, from its header alone.

    Raises:
        ImageError: unreadable, or not an image.
    """
    _silence_pillow()
    try:
        with path.open("rb") as file, open_image(file, _FORMATS) as image:
            width, height = image.size
            turned = _orientation(image) >= _FIRST_ON_ITS_SIDE
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image that can be read", hint=_READABLE) from error
    except Exception as error:
        raise ImageError(f"{path}: cannot be read: {str(error) or type(error).__name__}") from error
    return (width, height) if turned else (height, width)


def decode_image(file: IO[bytes], source: ImageSource, max_megapixels: float) -> DecodedImage:
    """`read_image` for a file that is open.

    Raises:
        ImageError: as there; the message names `source`.
    """
    if not file.read(1):
        raise ImageError(f"{source}: the file is empty (0 bytes)")
    file.seek(0)
    try:
        with open_image(file, _FORMATS) as image:
            check_size(image, source, max_megapixels)
            with large_ones_alone(image):
                image.load()
                pixels, notes = to_rgb(image)
            return DecodedImage(source, pixels, (*_frame_notes(image), *place_notes(image), *notes))
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{source}: not an image that can be read", hint=_READABLE) from error
    except MemoryError as error:
        raise ImageError(f"{source}: not enough memory to decode it") from error
    except Exception as error:
        # Damaged files make decoders raise nearly anything: OSError, SyntaxError, struct.error, ValueError.
        raise ImageError(f"{source}: damaged or cut short: {str(error) or type(error).__name__}") from error


def check_size(image: Image.Image, source: ImageSource, max_megapixels: float) -> None:
    """Refuse an image that is too large, before a pixel of it is decoded.

    Raises:
        ImageError: it is; the hint names a limit that would do.
    """
    pixels = (width := image.width) * (height := image.height)
    if isinstance(image, Tiff.TiffImageFile):
        # A small image may claim an enormous tile, for which the decoder would make room.
        tile = image.tag_v2.get(Tiff.TILEWIDTH, 0) * image.tag_v2.get(Tiff.TILELENGTH, 0)
        pixels = max(pixels, int(tile))
    megapixels = pixels / 1e6
    if megapixels > max_megapixels:
        size = f"{megapixels:,.1f}" if megapixels >= 1 else f"{megapixels:.6f}"
        raise ImageError(
            f"{source}: {width}x{height}, {size} megapixels: over the limit of {max_megapixels:g}",
            hint=f"raise the limit with --max-megapixels {int(megapixels) + 1}",
        )


def to_rgb(image: Image.Image) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Upright uint8 [H, W, 3] of a loaded image, and notes on what was scaled."""
    notes: tuple[str, ...] = ()
    orientation = _orientation(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        grey, note = _grey_to_8_bit(np.asarray(image), image.mode)
        image, notes = Image.fromarray(grey), (note,)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return np.array(image if image.mode == "RGB" else image.convert("RGB")), notes


def _grey_to_8_bit(values: NDArray[np.generic], mode: str) -> tuple[NDArray[np.uint8], str]:
    """Grey of more than 8 bits to uint8 [H, W]: by the range of its format or, without one, of its data."""
    grey = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    if mode != "F" and low >= 0 and high <= 65535:
        grey, note = grey / 257, "16-bit grey divided by 257"
    elif mode == "F" and low >= 0 and high <= 1:
        grey, note = grey * 255, "float grey in [0, 1] scaled to [0, 255]"
    elif mode == "F" and low >= 0 and high <= 255:
        note = "float grey in [0, 255] rounded"
    else:
        grey = (grey - low) * (255 / max(high - low, 1e-300))
        note = f"grey in [{low:g}, {high:g}] stretched to [0, 255]"
    return np.round(grey).astype(np.uint8), note


def _orientation(image: Image.Image) -> int:
    # Asked after load(): TIFF turns itself there and drops the tag.
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF says nothing about the pixels, and fails in many ways
        return 1


def _frame_notes(image: Image.Image) -> tuple[str, ...]:
    if image.format not in ("GIF", "WEBP", "PNG", "TIFF"):
        return ()
    try:
        frames = int(getattr(image, "n_frames", 1))
    except Exception:  # the first frame is fine, a later one is damaged
        return ("animation: first frame, a later one is damaged",)
    if frames < 2:
        return ()
    kind, parts = ("document", "pages") if image.format == "TIFF" else ("animation", "frames")
    return (f"{kind}: first of {frames} {parts}",)


def _silence_pillow() -> None:
    """Keep Pillow's remarks on broken metadata off the terminal.

    A filter for Pillow's modules alone, put back on top when it is gone; `warnings.catch_warnings` would swap
    the filters of all threads.
    """
    with _FILTER_LOCK:
        warnings.filterwarnings("ignore", module=r"PIL\.")
