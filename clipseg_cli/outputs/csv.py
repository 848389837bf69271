"""`regions.csv`: a line for each region of each image, the background included, for tables and statistics.

Columns: image, region (counted from 0), class_id, class, left, top, width, height and area in pixels, share of the
image, confidence (mean over the pixels; empty where it is not known). The areas of an image add up to its labelled
pixels. Images of earlier runs in the same folder keep their lines.
"""

from __future__ import annotations

import csv
import io
from itertools import groupby
from typing import IO, TYPE_CHECKING

from clipseg_cli.outputs._regions import AREAS, image_name, regions_of, rounded, writable_names
from clipseg_cli.outputs._spool import Collected, Spool
from clipseg_cli.types import Format

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from clipseg_cli.outputs._spool import Entry
    from clipseg_cli.types import RunInfo, Segmentation, Writer

FILE = "regions.csv"
COLUMNS = (
    "image",
    "region",
    "class_id",
    "class",
    "left",
    "top",
    "width",
    "height",
    "area",
    "share",
    "confidence",
)


def open_csv(run: RunInfo, out: Path, *, min_area: int = 0) -> Writer:
    """A writer of `regions.csv`; `min_area`: smaller regions, in pixels, go to their surroundings."""
    names = writable_names(run.classes)

    def entry(result: Segmentation, stem: Path) -> Entry:
        regions = regions_of(result, min_area)
        name = "".join(c if c.isprintable() else "_" for c in image_name(result, stem, out))
        rows = [
            (
                name,
                i,
                regions.labels[i],
                names[regions.labels[i]],
                *regions.boxes[i],
                regions.areas[i],
                f"{regions.areas[i] / result.labels.size:.6g}",
                rounded(regions.confidences[i]),
            )
            for i in range(len(regions))
        ]
        return name, _lines(rows)

    return Collected(out / FILE, entry=entry, read=_read, join=_join, mark=",".join(COLUMNS))


def _lines(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _join(spool: Spool, file: IO[bytes]) -> None:
    file.write(_lines([COLUMNS]))
    for _, data in spool:
        file.write(data)


def _read(path: Path) -> Iterator[Entry]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, strict=True)
        if next(rows) != list(COLUMNS):
            raise ValueError("its columns are others")
        for name, own in groupby(rows, key=lambda row: row[0] if len(row) == len(COLUMNS) else None):
            if name is None:
                raise ValueError(f"line {rows.line_num} is not whole")
            yield name, _lines(own)


FORMAT = Format(
    open_csv,
    ranges={"min_area": AREAS},
    summary="regions.csv: class, box, area and confidence of each region",
)
