"""Images are opened by the decoders that are named, whatever their size: the callers look at it themselves."""

from __future__ import annotations

import struct
import threading
from contextlib import nullcontext
from typing import IO, TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

LARGE_PIXELS = 16_000_000
"""From here on images are decoded one at a time: each takes its pixels twice or three times over meanwhile."""

_LARGE_LOCK = threading.Lock()
_PREFIX = 16  # bytes, from which a decoder knows its own


def open_image(file: IO[bytes], formats: Sequence[str]) -> Image.Image:
    """An image whose header has been read, and no pixel of it.

    `Image.open` would warn at 90 and stop at 179 megapixels, by a limit that holds for the whole process and belongs
    to whoever else uses Pillow in it.

    Args:
        file: open, at its beginning.
        formats: names of Pillow's decoders; all others stay out. It reads EPS by running Ghostscript on it.

    Raises:
        UnidentifiedImageError: none of them knows it.
    """
    Image.init()
    prefix = file.read(_PREFIX)
    for name in formats:
        factory, accept = Image.OPEN[name]
        if accept is not None and not _accepted(accept(prefix)):
            continue
        try:
            file.seek(0)
            opened: Image.Image = factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # it is another one's after all
            continue
        return opened
    raise UnidentifiedImageError("no decoder knows this file")


def large_ones_alone(image: Image.Image) -> AbstractContextManager[object]:
    """While an image is decoded: of large ones, one at a time; small ones are in nobody's way."""
    return _LARGE_LOCK if image.width * image.height > LARGE_PIXELS else nullcontext()


def _accepted(answer: object) -> bool:
    """A decoder says True, or a text where it knows the kind and cannot read it."""
    return bool(answer) and not isinstance(answer, str)
