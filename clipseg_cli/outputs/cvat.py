"""`cvat.xml`: masks as "CVAT for images 1.1" has them, one for each region.

Nothing is lost: run lengths go along the rows of the box of a mask. The background has no mask. The task needs the
labels that stand in the file under `meta`; images are found by their names. Images of earlier runs in the same folder
keep their masks. Format: docs.cvat.ai/docs/manual/advanced/xml_format.
"""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING
from xml.sax.saxutils import escape, unescape

from clipseg_cli.ops.rle import counts_of, runs_in
from clipseg_cli.outputs._colors import class_colors, hex_color
from clipseg_cli.outputs._own import MARK
from clipseg_cli.outputs._regions import (
    AREAS,
    Lost,
    class_numbers,
    image_name,
    regions_of,
    things,
    writable_names,
)
from clipseg_cli.outputs._spool import Collected, Spool
from clipseg_cli.types import Format
from clipseg_cli.utils.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clipseg_cli.outputs._spool import Entry
    from clipseg_cli.types import RunInfo, Segmentation, Writer

FILE = "cvat.xml"
_QUOTES = {'"': "&quot;", "\t": "&#9;"}
_IMAGE = re.compile(rb'  <image id="\d+" (name="([^"]*)" .*</image>)\n')


def open_cvat(run: RunInfo, out: Path, *, min_area: int = 0) -> Writer:
    """A writer of `cvat.xml`; `min_area`: smaller regions, in pixels, go to their surroundings."""
    names = [escape(name, _QUOTES) for name in writable_names(run.classes)]
    lost = Lost("cvat")

    def entry(result: Segmentation, stem: Path) -> Entry:
        regions = regions_of(result, min_area)
        height, width = result.labels.shape
        name = clean(image_name(result, stem, out))
        parts = [f'name="{escape(name, _QUOTES)}" width="{width}" height="{height}">']
        for i in things(result, regions):
            mask = regions.mask(i)
            counts = ", ".join(map(str, counts_of(*runs_in(mask), mask.size).tolist()))
            left, top, wide, high = regions.boxes[i].tolist()
            parts.append(
                f'<mask label="{names[regions.labels[i]]}" source="auto" occluded="0" rle="{counts}" '
                f'left="{left}" top="{top}" width="{wide}" height="{high}" z_order="0"></mask>'
            )
        lost.ignored(result)
        return name, "".join((*parts, "</image>")).encode()

    def join(spool: Spool, file: IO[bytes]) -> None:
        file.write(_head(run, names).encode())
        for number, (_, data) in enumerate(spool):
            file.write(b'  <image id="%d" %b\n' % (number, data))
        file.write(b"</annotations>\n")

    return Collected(out / FILE, entry=entry, read=_read, join=join, said=lost.say)


def _head(run: RunInfo, names: list[str]) -> str:
    colors = class_colors(len(run.classes), run.classes.background)
    labels = "".join(
        f"      <label><name>{name}</name><color>{hex_color(color)}</color><type>mask</type>"
        "<attributes></attributes></label>\n"
        for number, name, color in zip(class_numbers(run.classes), names, colors, strict=True)
        if number
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<!-- {MARK} {run.versions.get("clipseg", "")} -->\n'
        f"<annotations>\n  <version>1.1</version>\n  <meta><task>\n    <labels>\n{labels}    </labels>\n"
        "  </task></meta>\n"
    )


def _read(path: Path) -> Iterator[Entry]:
    line = b""
    with path.open("rb") as file:
        for line in file:
            if found := _IMAGE.fullmatch(line):
                yield unescape(found[2].decode(), {text: sign for sign, text in _QUOTES.items()}), found[1]
            elif line.lstrip().startswith((b"<image", b"<mask")):
                raise ValueError("an image is not on a line of its own")
    if line.strip() != b"</annotations>":
        raise ValueError("its end is missing")


FORMAT = Format(
    open_cvat,
    ranges={"min_area": AREAS},
    summary="cvat.xml: masks as CVAT for images 1.1",
)
