"""Index image `<stem>.png`: the value of a pixel is the id of its class.

Up to 255 classes: 8-bit palette PNG (mode P) with the palette of PASCAL VOC, as its SegmentationClass files;
255 stays free for "ignore". More classes: 16-bit grey PNG without a palette.

What the ids mean travels inside the file: the text chunk "clipseg" is JSON with `classes` (names in the order of their
ids), `background`, `ignore`, `image`, `file` (of the image) and `made_by`.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.config import IGNORE_INDEX, ignore_value
from clipseg_cli.outputs._colors import voc_palette
from clipseg_cli.outputs._each import each
from clipseg_cli.outputs._own import MARK, write_own
from clipseg_cli.outputs._png import encode_png
from clipseg_cli.outputs._run import json_safe
from clipseg_cli.types import Format, Segmentation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from clipseg_cli.types import ClassList, RunInfo

ENDING = ".png"


def encode_labels(
    labels: NDArray[np.uint8] | NDArray[np.uint16],
    classes: ClassList,
    *,
    image: str = "",
    file: str = "",
    made_by: str = "",
) -> bytes:
    """The PNG of a label map, for a file or for standard output.

    Args:
        labels: [H, W] class ids, or `ignore_value`.
        classes: what they mean.
        image: name of the image.
        file: name of its file, with the suffix that `image` lacks.
        made_by: model and method, for people.
    """
    facts = {
        "classes": classes.names,
        "background": classes.background,
        "ignore": ignore_value(len(classes)),
        "image": image,
        **({"file": file} if file else {}),
        "made_by": made_by,
    }
    small = len(classes) <= IGNORE_INDEX
    return encode_png(
        labels.astype(np.uint8 if small else np.uint16, copy=False),
        palette=_palette() if small else None,
        # ASCII, since Latin-1 is all that it can hold.
        text=(MARK, json.dumps(json_safe(facts), ensure_ascii=True)),
    )


@functools.cache
def _palette() -> bytes:
    return voc_palette().tobytes()


def read_facts(image: Image.Image) -> dict[str, Any] | None:
    """What a label PNG of ours says of itself; None where it says nothing."""
    return facts_in(image.info)


def facts_in(texts: Mapping[Any, Any]) -> dict[str, Any] | None:
    """The same, of its text chunks by name."""
    text = texts.get(MARK)
    try:
        facts = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def write(result: Segmentation, stem: Path, run: RunInfo) -> tuple[Path, ...]:
    """Write `<stem>.png`.

    Raises:
        OutputError: the file cannot be written.
    """
    source = result.image.source
    data = encode_labels(
        result.labels,
        result.classes,
        image=source.name,
        file=source.path.name if source.path else source.file,
        made_by=run.made_by,
    )
    return (write_own(stem.with_name(stem.name + ENDING), data),)


FORMAT = Format(
    each(write), ENDING, default=True, summary="index PNG with the PASCAL VOC palette: pixel value = class id"
)
