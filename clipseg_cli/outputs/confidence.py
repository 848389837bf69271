"""`<stem>_confidence.png`: how sure the model is of the label of each pixel, as 16-bit grey from 0 to 65535.

The text chunk "clipseg" is JSON with `confidence`, the value that stands for 1, and `image`.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, PngImagePlugin

from clipseg_cli.outputs._each import each
from clipseg_cli.outputs._own import MARK, write_own
from clipseg_cli.types import Format

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types import RunInfo, Segmentation

ENDING = "_confidence.png"
ONE = 65_535
"""The grey value of certainty."""


def write(result: Segmentation, stem: Path, run: RunInfo) -> tuple[Path, ...]:
    """Write `<stem>_confidence.png`.

    Raises:
        OutputError: the file cannot be written.
    """
    del run
    data = encode_confidence(result.scores, str(result.image.source.relative))
    return (write_own(stem.with_name(stem.name + ENDING), data),)


def encode_confidence(scores: NDArray[np.float32], image: str) -> bytes:
    """The PNG of confidences [H, W] in [0, 1]; `image` is the name of the image."""
    grey = np.rint(np.clip(scores, 0, 1) * np.float32(ONE)).astype(np.uint16)
    text = PngImagePlugin.PngInfo()
    name = image.encode(errors="replace").decode()
    text.add_text(MARK, json.dumps({"confidence": ONE, "image": name}))
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG", compress_level=3, pnginfo=text)
    return buffer.getvalue()


FORMAT = Format(
    each(write), ENDING, needs=("scores",), summary="confidence of each label as 16-bit grey, 65535 is 1"
)
