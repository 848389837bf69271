"""Index picture `<stem>.png`: the value of a pixel is the id of its class.

Up to 255 classes: 8-bit palette PNG (mode P) with the palette of PASCAL VOC, as its SegmentationClass files;
255 stays free for "ignore". More classes: 16-bit grey PNG without a palette.
"""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clipseg_cli.config import IGNORE_INDEX
from clipseg_cli.outputs._colors import voc_palette
from clipseg_cli.types import Segmentation, Writer
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ENDING = ".png"


def encode_labels(labels: NDArray[np.uint8] | NDArray[np.uint16], classes: int) -> bytes:
    """The PNG of a label map [H, W] whose ids mean so many classes, for a file or for standard output."""
    if classes <= IGNORE_INDEX:
        image = Image.fromarray(labels.astype(np.uint8, copy=False))
        image.putpalette(voc_palette().tobytes())
    else:
        image = Image.fromarray(labels.astype(np.uint16, copy=False))
    buffer = io.BytesIO()
    # Label maps are runs of one value: looking for nothing else is the fastest, and mostly the smallest too.
    image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def write(result: Segmentation, stem: Path) -> tuple[Path, ...]:
    """Write `<stem>.png`.

    Raises:
        OutputError: the file cannot be written.
    """
    return (
        write_bytes(stem.with_name(stem.name + ENDING), encode_labels(result.labels, len(result.classes))),
    )


WRITER = Writer(write, ENDING, summary="index PNG with the PASCAL VOC palette: pixel value = class id")
