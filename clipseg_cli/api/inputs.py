"""Images as Python programs have them: a file, its bytes, a Pillow image, an array; all decoded as files are."""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipseg_cli.data.images import check_size, decode_image, read_image, to_rgb
from clipseg_cli.errors import ClipsegError, ImageError
from clipseg_cli.types import DecodedImage, ImageSource, MemorySource

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import NDArray

    ImageLike: TypeAlias = (
        str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]
    )

_CHANNELS = ((), (3,), (4,))


def decoder(image: ImageLike, name: str, *, max_megapixels: float) -> Callable[[], DecodedImage]:
    """What gives the image; what the caller may change or close is taken at once, the rest when called.

    Args:
        image: the name of a file; the bytes of one; a Pillow image; or an array: uint8 [H, W, 3] RGB,
            [H, W, 4] RGBA, [H, W] grey, or uint16 [H, W] grey.
        name: for messages about an image without a file name.
        max_megapixels: larger files and Pillow images are refused before a pixel is decoded.

    Returns:
        A function without arguments, for any thread. It raises ImageError for what is no image, and
        TypeError for what could never be one.
    """
    source = MemorySource(None, PurePosixPath(name))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return partial(decode_image, io.BytesIO(image), source, max_megapixels)
    if isinstance(image, (str, os.PathLike)):
        return partial(_read_file, os.fspath(image), max_megapixels)
    try:
        taken = _taken(image, source, max_megapixels)
    except (ClipsegError, TypeError) as error:
        wrong = error  # said when it is asked for, as of a file

        def fail() -> DecodedImage:
            raise wrong

        return fail
    return lambda: taken


def require_many(images: object) -> None:
    """Refuse one image where many are expected, also one that could be iterated over.

    Raises:
        TypeError: it is one, or nothing that gives images.
    """
    one = isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike))
    if one or not hasattr(images, "__iter__") or (isinstance(images, np.ndarray) and images.ndim < 4):
        raise TypeError(f"many images are expected here, not one {type(images).__name__}")


def _read_file(name: str | bytes, max_megapixels: float) -> DecodedImage:
    text = os.fsdecode(name)
    if not text.strip() or "\0" in text:
        raise ImageError(f"{text!r} is not the name of a file")
    path = Path(text)
    return read_image(ImageSource(path, PurePosixPath(path.stem)), max_megapixels=max_megapixels)


def _taken(image: Any, source: ImageSource, max_megapixels: float) -> DecodedImage:
    """A copy of the pixels of what is in memory.

    Raises:
        ImageError: damaged, empty, too large, or an array of another shape.
        TypeError: neither a Pillow image nor an array of pixels.
    """
    if isinstance(image, np.ndarray):
        image = _from_array(image, source)
    elif isinstance(image, Image.Image):
        check_size(image, source, max_megapixels)
    else:
        raise TypeError(
            "an image is a file name, bytes of a file, a Pillow image or an array of uint8, "
            f"not {type(image).__name__}"
        )
    try:
        image.load()
        pixels, notes = to_rgb(image)
    except MemoryError as error:
        raise ImageError(f"{source}: not enough memory to decode it") from error
    except Exception as error:  # a Pillow image may not have been read yet; see `data.images`
        raise ImageError(f"{source}: damaged or cut short: {str(error) or type(error).__name__}") from error
    return DecodedImage(source, pixels, notes)


def _from_array(array: NDArray[Any], source: ImageSource) -> Image.Image:
    wide = array.dtype.kind == "u" and array.dtype.itemsize == 2
    if array.dtype != np.uint8 and not wide:
        raise TypeError(
            f"{source}: an array of {array.dtype}; pixels are uint8 from 0 to 255, or uint16 if grey"
        )
    channels = _CHANNELS[:1] if wide else _CHANNELS
    if array.size == 0 or array.ndim < 2 or array.shape[2:] not in channels:
        raise ImageError(
            f"{source}: an array of {array.dtype} {list(array.shape)} is not an image",
            hint="[H, W, 3] is RGB, [H, W, 4] RGBA, [H, W] grey",
        )
    return Image.fromarray(array)
