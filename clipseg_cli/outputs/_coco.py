"""Files in the layout of COCO: images, and an annotation for each region that is no background."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

from clipseg_cli.outputs._own import MARK
from clipseg_cli.outputs._regions import (
    Lost,
    class_numbers,
    image_name,
    regions_of,
    rounded,
    things,
)
from clipseg_cli.outputs._spool import Collected, Spool, read_lines, to_json, write_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clipseg_cli.outputs._spool import Entry
    from clipseg_cli.types import ClassList, RunInfo, Segmentation, Writer


def coco_writer(
    path: Path,
    run: RunInfo,
    outline: Callable[[Segmentation, int], Any],
    lost: Lost,
    min_area: int,
) -> Writer:
    """A writer of one such file.

    Args:
        path: of the file.
        run: with what the results are made.
        outline: (result, region) -> its `segmentation`.
        lost: what the format cannot hold.
        min_area: smaller regions, in pixels, go to their surroundings.
    """
    numbers = class_numbers(run.classes)

    def entry(result: Segmentation, stem: Path) -> Entry:
        regions = regions_of(result, min_area)
        height, width = result.labels.shape
        name = image_name(result, stem, path.parent)
        annotations = []
        for i in things(result, regions):
            one = {
                "category_id": int(numbers[regions.labels[i]]),
                "segmentation": outline(result, i),
                "area": int(regions.areas[i]),
                "bbox": regions.boxes[i].tolist(),
                "iscrowd": 0,
            }
            score = rounded(regions.confidences[i])
            annotations.append(one if score is None else {**one, "score": score})
        lost.ignored(result)
        image = {"file_name": name, "width": width, "height": height}
        return name, to_json({"image": image, "annotations": annotations})

    def join(spool: Spool, file: IO[bytes]) -> None:
        file.write(b'{"info": ' + to_json(coco_info(run)) + b',\n"licenses": [],\n')
        file.write(b'"categories": ' + to_json(coco_categories(run.classes)) + b",\n")
        write_lines(file, b'"images": [', _images(spool), b"],\n")
        write_lines(file, b'"annotations": [', _annotations(spool), b"]}\n")

    return Collected(path, entry=entry, read=_read, join=join, said=lost.say)


def coco_info(run: RunInfo) -> dict[str, Any]:
    """Where a file comes from."""
    return {MARK: run.versions.get("clipseg", ""), "description": run.made_by}


def coco_categories(classes: ClassList) -> list[dict[str, Any]]:
    """All classes but the background, counted from 1 in label order."""
    numbers = class_numbers(classes).tolist()
    named = zip(numbers, classes.names, strict=True)
    return [{"id": number, "name": name, "supercategory": ""} for number, name in named if number]


def _images(spool: Spool) -> Iterator[bytes]:
    for number, (_, data) in enumerate(spool, start=1):
        yield to_json({"id": number, **json.loads(data)["image"]})


def _annotations(spool: Spool) -> Iterator[bytes]:
    number = 0
    for image, (_, data) in enumerate(spool, start=1):
        for annotation in json.loads(data)["annotations"]:
            number += 1
            yield to_json({"id": number, "image_id": image, **annotation})


def _read(path: Path) -> Iterator[Entry]:
    """Entries of a file that was written before; of its images only names and sizes are held in memory."""
    images: dict[int, dict[str, Any]] = {}
    own: list[dict[str, Any]] = []
    at = 0
    with path.open("rb") as file:
        for section, value in read_lines(file):
            if section == "images":
                images[value.pop("id")] = value
            elif section == "annotations":
                if value["image_id"] != at and own:
                    yield _entry(images.pop(at), own)
                    own = []
                at = value.pop("image_id")
                value.pop("id")
                own.append(value)
    if own:
        yield _entry(images.pop(at), own)
    for image in images.values():
        yield _entry(image, [])


def _entry(image: dict[str, Any], annotations: list[dict[str, Any]]) -> Entry:
    return str(image["file_name"]), to_json({"image": image, "annotations": annotations})
