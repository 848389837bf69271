"""Archives whose bytes follow from their content alone, and not from when they were written."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SINCE = (1980, 1, 1, 0, 0, 0)  # the first day that an archive can name
_MODE = 0o644 << 16


def member(name: str, *, packed: bool = False) -> zipfile.ZipInfo:
    """A file in an archive: as it is, or packed."""
    info = zipfile.ZipInfo(name, _SINCE)
    info.external_attr = _MODE
    info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    return info


def png_bytes(pixels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> bytes:
    """A PNG of RGB [H, W, 3], or of palette indices [H, W]."""
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
