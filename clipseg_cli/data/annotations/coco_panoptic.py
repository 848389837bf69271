"""COCO panoptic in a zip: a JSON and, in a folder of its name, a PNG of segments for each image.

The id of a segment is red + 256 green + 65536 blue; 0 is in none. Format: cocodataset.org/#format-data, 4. Panoptic
Segmentation.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.data.annotations._files import image_bytes, open_archive, read_colours
from clipseg_cli.data.annotations._json import objects, parse_json, text, whole
from clipseg_cli.data.annotations._kinds import panoptic_masks, zip_kind
from clipseg_cli.data.annotations._regions import ClassNames, about
from clipseg_cli.data.annotations.coco import by_id, class_of, size_of
from clipseg_cli.errors import AnnotationError
from clipseg_cli.types import UNTOLD, Annotation, AnnotationFormat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clipseg_cli.data.annotations._files import Archive
    from clipseg_cli.types import ReadOptions, Told


def read(path: Path, options: ReadOptions) -> Iterator[Annotation]:
    """The images of all such files in an archive.

    Raises:
        AnnotationError: it is no such archive.
    """
    names = ClassNames(options.classes)
    with open_archive(path) as archive:
        files = {n: folder for n in archive.names if (folder := panoptic_masks(n, archive.names))}
        if not files:
            raise AnnotationError(f"{path} holds no JSON with a folder of masks of its name")
        for file, folder in files.items():
            where = f"{file} in {path}"
            data = parse_json(archive.read(file), where)
            with about(where):
                categories = {whole(row, "id"): text(row, "name") for row in objects(data, "categories")}
                images = by_id(objects(data, "images"), "image")
                rows = list[tuple[str, tuple[int, int], dict[str, Any]]]()
                for row in objects(data, "annotations"):
                    if (image := images.pop(whole(row, "image_id"), None)) is None:
                        raise AnnotationError(f"there is no image {row['image_id']}, or it stands twice")
                    text(row, "file_name")
                    rows.append((text(image, "file_name"), size_of(image), row))
                if images:
                    name = text(next(iter(images.values())), "file_name")
                    raise AnnotationError(f"{name} has no segments: the file is cut short")
            for name, size, row in rows:
                yield Annotation(name, size, partial(_told, archive, folder, row, categories, names))


def _told(
    archive: Archive,
    folder: str,
    row: dict[str, Any],
    categories: dict[int, str],
    names: ClassNames,
    size: tuple[int, int],
) -> Told:
    segments = by_id(objects(row, "segments_info"), "segment")
    colours = read_colours(image_bytes(archive, folder + row["file_name"], size), size)
    found, index = np.unique(colours, return_inverse=True)
    classes = np.full(len(found), UNTOLD, np.int32)
    for i, segment in enumerate(found.tolist()):
        if segment in segments:
            with about(f"segment {segment}"):
                classes[i] = class_of(segments.pop(segment), categories, names)
        elif segment:
            raise AnnotationError(f"its mask holds the segment {segment}, of which the JSON says nothing")
    if segments:
        raise AnnotationError(f"its mask has no pixel of the segment {next(iter(segments))}")
    return classes[index.reshape(colours.shape)]


FORMAT = AnnotationFormat(
    read,
    lambda path: zip_kind(path) == "coco-panoptic",
    (".zip",),
    summary="COCO panoptic in a zip",
)
