"""`coco_panoptic.zip`: COCO's panoptic format, a PNG of segments for each image and a JSON that says what they are.

`annotations/panoptic_default/<image>.png` holds the ids of segments as red + 256 green + 65536 blue, one segment for
each region. Background and ignored pixels are 0, "unlabelled". Images of earlier runs in the same folder stay in the
archive. Format: cocodataset.org/#format-data, 4. Panoptic Segmentation.
"""

from __future__ import annotations

import json
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.outputs._archive import member, png_bytes
from clipseg_cli.outputs._coco import coco_categories, coco_info
from clipseg_cli.outputs._own import MARK
from clipseg_cli.outputs._regions import AREAS, Lost, class_numbers, image_name, regions_of, things
from clipseg_cli.outputs._spool import Collected, Spool, read_lines, to_json, write_lines
from clipseg_cli.types import Format
from clipseg_cli.utils.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clipseg_cli.outputs._spool import Entry
    from clipseg_cli.types import RunInfo, Segmentation, Writer

FILE = "coco_panoptic.zip"
JSON, FOLDER = "annotations/panoptic_default.json", "annotations/panoptic_default/"


def open_panoptic(run: RunInfo, out: Path, *, min_area: int = 0) -> Writer:
    """A writer of `coco_panoptic.zip`; `min_area`: smaller regions, in pixels, go to their surroundings."""
    numbers = class_numbers(run.classes)
    lost = Lost("coco-panoptic")

    def entry(result: Segmentation, stem: Path) -> Entry:
        regions = regions_of(result, min_area)
        ids = np.zeros(len(regions) + 1, np.int64)  # the last is that of -1, no region
        own = list(things(result, regions))
        ids[own] = np.arange(1, len(own) + 1)
        segments = [
            {
                "id": int(ids[i]),
                "category_id": int(numbers[regions.labels[i]]),
                "area": int(regions.areas[i]),
                "bbox": regions.boxes[i].tolist(),
                "iscrowd": 0,
            }
            for i in own
        ]
        lost.ignored(result)
        height, width = result.labels.shape
        name = image_name(result, stem, out)
        file = clean(stem.relative_to(out).as_posix(), "\\") + ".png"
        image = {"file_name": name, "width": width, "height": height}
        annotation = {"file_name": file, "segments_info": segments}
        segment = ids[regions.index]
        pixels = np.stack([segment >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)
        return name, _entry(image, annotation, png_bytes(pixels))

    def join(spool: Spool, file: IO[bytes]) -> None:
        categories = [{**one, "isthing": 1} for one in coco_categories(run.classes)]
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(member(f"{MARK}.json"), to_json(coco_info(run)))
            for _, data in spool:
                head, _, png = data.partition(b"\n")
                archive.writestr(member(FOLDER + json.loads(head)["annotation"]["file_name"]), png)
            with archive.open(member(JSON, packed=True), "w", force_zip64=True) as text:
                text.write(b'{"info": ' + to_json(coco_info(run)) + b',\n"licenses": [],\n')
                text.write(b'"categories": ' + to_json(categories) + b",\n")
                write_lines(text, b'"images": [', _lines(spool, "image", "id"), b"],\n")
                write_lines(text, b'"annotations": [', _lines(spool, "annotation", "image_id"), b"]}\n")

    return Collected(out / FILE, entry=entry, read=_read, join=join, said=lost.say)


def _entry(image: dict[str, Any], annotation: dict[str, Any], png: bytes) -> bytes:
    """What is known of an image on the first line, then its PNG."""
    return to_json({"image": image, "annotation": annotation}) + b"\n" + png


def _lines(spool: Spool, part: str, key: str) -> Iterator[bytes]:
    for number, (_, data) in enumerate(spool, start=1):
        yield to_json({key: number, **json.loads(data.partition(b"\n")[0])[part]})


def _read(path: Path) -> Iterator[Entry]:
    images: dict[int, dict[str, Any]] = {}
    with zipfile.ZipFile(path) as archive, archive.open(JSON) as text:
        for section, value in read_lines(text):
            if section == "images":
                images[value.pop("id")] = value
            elif section == "annotations":
                image = images.pop(value.pop("image_id"))
                yield image["file_name"], _entry(image, value, archive.read(FOLDER + value["file_name"]))
    if images:
        raise ValueError("images without segments")


FORMAT = Format(
    open_panoptic,
    ranges={"min_area": AREAS},
    summary="coco_panoptic.zip: COCO panoptic, a PNG of segments for each image",
)
