"""`voc.zip`: class masks as PASCAL VOC has them, which CVAT imports as "Segmentation mask 1.1".

`labelmap.txt` gives every class the colour that it has in `SegmentationClass/<image>.png`: those of the VOC palette, in
label order behind the background, which is black. Ignored pixels are void, (224, 224, 192). Up to 254 classes these are
palette PNGs, beyond RGB. Regions of one class are not told apart. Images of earlier runs in the same folder stay in the
archive.
"""

from __future__ import annotations

import logging
import zipfile
from typing import IO, TYPE_CHECKING

import numpy as np

from clipseg_cli.config import IGNORE_INDEX, ignore_value
from clipseg_cli.outputs._archive import member, png_bytes
from clipseg_cli.outputs._colors import voc_palette
from clipseg_cli.outputs._own import MARK
from clipseg_cli.outputs._regions import class_numbers, writable_names
from clipseg_cli.outputs._spool import Collected, Spool
from clipseg_cli.types import Format
from clipseg_cli.utils.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.outputs._spool import Entry
    from clipseg_cli.types import RunInfo, Segmentation, Writer

logger = logging.getLogger(__name__)

FILE = "voc.zip"
MASKS, LABELMAP, LIST = "SegmentationClass/", "labelmap.txt", "ImageSets/Segmentation/default.txt"
BACKGROUND = "background"
_SEPARATORS = ":#"
"""Of `labelmap.txt`, which no name may hold."""


def open_voc(run: RunInfo, out: Path) -> Writer:
    """A writer of `voc.zip`."""
    classes = run.classes
    numbers = class_numbers(classes)
    table = np.zeros(1 << 16, np.int64)
    table[: len(classes)] = _indices(numbers)
    table[ignore_value(len(classes))] = IGNORE_INDEX
    narrow = int(table[: len(classes)].max(initial=0)) < IGNORE_INDEX
    names = writable_names(classes, _SEPARATORS, (BACKGROUND,))
    labelmap = _labelmap(run, names, table)

    def entry(result: Segmentation, stem: Path) -> Entry:
        index = table[result.labels]
        name = clean(stem.relative_to(out).as_posix(), "\\")
        if narrow:
            return name, png_bytes(index.astype(np.uint8), voc_palette())
        return name, png_bytes(_colors(index))

    def join(spool: Spool, file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(member(LABELMAP), labelmap)
            for name, data in spool:
                archive.writestr(member(f"{MASKS}{name}.png"), data)
            archive.writestr(member(LIST, packed=True), "".join(f"{name}\n" for name, _ in spool))

    def say() -> None:
        pairs = zip(names, classes.names, numbers, strict=True)
        if changed := [name for name, own, number in pairs if number and name != own]:
            logger.warning(
                "voc: class names that labelmap.txt cannot hold have become %s", ", ".join(changed)
            )

    return Collected(out / FILE, entry=entry, read=_read, join=join, said=say)


def _indices(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Palette indices of classes; 255 stays free for void."""
    return numbers + (numbers >= IGNORE_INDEX)


def _colors(index: NDArray[np.int64]) -> NDArray[np.uint8]:
    """RGB [..., 3] of palette indices, by the rule of VOC, which goes on beyond 256."""
    colors = np.zeros((*index.shape, 3), np.uint8)
    for channel in range(3):
        for bit in range(8):
            colors[..., channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colors


def _labelmap(run: RunInfo, names: list[str], table: NDArray[np.int64]) -> str:
    rows = [(0, BACKGROUND)]
    rows += [(int(i), name) for i, name in zip(table[: len(names)], names, strict=True) if i]
    lines = [f"{name}:{','.join(map(str, _colors(np.array(i)).tolist()))}::\n" for i, name in sorted(rows)]
    head = f"# {MARK} {run.versions.get('clipseg', '')}\n# label:color_rgb:parts:actions\n"
    return head + "".join(lines)


def _read(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        archive.getinfo(LIST)  # it comes last
        for name in archive.namelist():
            if name.startswith(MASKS):
                yield name[len(MASKS) : -len(".png")], archive.read(name)


FORMAT = Format(open_voc, summary="voc.zip: class masks and labelmap.txt, CVAT's Segmentation mask 1.1")
