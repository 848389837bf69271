"""PNG files of one channel: Pillow holds the interpreter's lock while it packs, zlib does not, and the model needs it.

Only what label maps need (PNG, third edition, W3C): 8 bits with a palette or 16 bits of grey, no filter, not
interlaced. Reading stays Pillow's.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, PALETTE = 0, 3
"""Colour types."""


def encode_png(
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    *,
    palette: bytes | None = None,
    text: tuple[str, str] | None = None,
) -> bytes:
    """A PNG of uint8 or uint16 [H, W].

    Args:
        pixels: indices where there is a palette, else grey.
        palette: 3 bytes for each of at most 256 colours.
        text: keyword and ASCII text of a chunk before the pixels, compressed: a list of 300 names is longer than most
            label maps.
    """
    height, width = pixels.shape
    bits, colour = 8 * pixels.dtype.itemsize, GREY if palette is None else PALETTE
    rows = np.zeros(
        (height, 1 + width * pixels.dtype.itemsize), np.uint8
    )  # the first byte of each says "no filter"
    rows[:, 1:] = pixels.astype(pixels.dtype.newbyteorder(">"), copy=False).view(np.uint8).reshape(height, -1)
    # Label maps are runs of one value: looking for nothing else is the fastest, and mostly the smallest too.
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))]
    if palette is not None:
        chunks.append((b"PLTE", palette))
    if text is not None:
        keyword, said = text
        chunks.append((b"zTXt", keyword.encode("latin-1") + b"\0\0" + zlib.compress(said.encode("ascii"))))
    chunks += [(b"IDAT", packer.compress(rows.data) + packer.flush()), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
        for name, data in chunks
    )
