"""Heat maps `<stem>_heatmaps/<id>_<name>.jpg`: how sure the model is of one class at every pixel.

Inferno, a perceptually uniform colour map, from 0 to 1 on every image, so that images can be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw

from clipseg_cli.outputs import _canvas as canvas
from clipseg_cli.outputs._each import each
from clipseg_cli.outputs._names import safe_name
from clipseg_cli.outputs._own import write_own
from clipseg_cli.outputs._text import Line, drawable
from clipseg_cli.types import Format, Segmentation

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types import RunInfo

ENDING = "_heatmaps"

_MIN_PEAK = 0.1
"""A class that won no pixel and is nowhere surer than this has nothing to show."""

# The grey image shows through, most where the class is not and inferno is black.
_HEAT, _GREY, _GREY_LOSS = 0.75, 0.45, 0.2
_PAPER, _INK = "#101010", "#f0f0f0"


def write(result: Segmentation, stem: Path, run: RunInfo) -> tuple[Path, ...]:
    """Write a heat map for each class that won a pixel or came near to it; none without `class_scores`.

    Raises:
        OutputError: a file cannot be written.
    """
    del run
    if result.class_scores is None:
        return ()
    size = canvas.show_size(*result.labels.shape)
    shown = canvas.resize_smooth(result.image.pixels, size)
    grey = np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY), np.uint8)
    folder = stem.with_name(stem.name + ENDING)
    digits = len(str(len(result.classes) - 1))
    written = []
    for share in result.shares():
        scores = result.class_scores(share.id)  # one class at a time: [H, W] of 12 megapixels is 48 MB
        peak = float(scores.max())
        if not share.pixels and peak < _MIN_PEAK:
            continue
        title = f"{drawable(share.name, f'class {share.id}')[0]}  ·  peak {peak:.2f}"
        image = draw_heatmap(canvas.resize_smooth(scores, size), grey, title)
        path = folder / f"{share.id:0{digits}}_{safe_name(share.name)}.jpg"
        written.append(write_own(path, canvas.jpeg_bytes(np.asarray(image))))
    return tuple(written)


def draw_heatmap(scores: NDArray[np.float32], grey: NDArray[np.uint8], title: str) -> Image.Image:
    """Confidence [H, W] in [0, 1] over the grey image uint8 [H, W], below a strip with title and scale."""
    heatmap = Image.fromarray(_blend(scores, grey))
    size = canvas.font_size(*scores.shape)
    strip, pad = round(2.2 * size), round(0.7 * size)
    zero, one, bar, gap = Line.of("0", size), Line.of("1", size), 7 * size, size // 3
    whole = Image.new("RGB", (max(heatmap.width, 20 * size), heatmap.height + strip), _PAPER)
    whole.paste(heatmap, (0, strip))
    draw = ImageDraw.Draw(whole)
    right, middle = whole.width - pad - one.width - gap, strip // 2  # where the scale ends
    left = right - bar - gap - zero.width
    Line.of(title, size, left - 2 * pad).draw(draw, pad, middle, _INK)
    zero.draw(draw, left, middle, _INK)
    one.draw(draw, right + gap, middle, _INK)
    ramp = np.tile(np.linspace(0, 1, bar, dtype=np.float32), (size, 1))
    whole.paste(Image.fromarray(_colorize(ramp)), (right - bar, middle - size // 2))
    return whole


def _blend(scores: NDArray[np.float32], grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    through = grey * (_GREY - _GREY_LOSS * np.clip(np.nan_to_num(scores), 0, 1))  # [H, W]
    return np.asarray(np.clip(_HEAT * _colorize(scores) + through[..., None], 0, 255), np.uint8)


def _colorize(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Inferno RGB [H, W, 3] of confidences [H, W]."""
    levels = np.round(255 * np.clip(np.nan_to_num(scores), 0, 1)).astype(np.uint8)
    return np.asarray(
        cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB), np.uint8
    )


FORMAT = Format(
    each(write),
    ENDING,
    class_scores=True,
    needs=("pixels", "scores"),
    summary="a confidence image for each class",
)
