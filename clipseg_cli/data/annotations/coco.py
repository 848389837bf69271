"""COCO instances: run lengths, compressed or not, and polygons, in any mixture; a JSON, also alone in a zip.

Several polygons of one annotation are laid over each other; `iscrowd`, boxes and areas are not read. Format:
cocodataset.org/#format-data.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.data.annotations._files import read_member
from clipseg_cli.data.annotations._json import objects, parse_json, read_json, text, whole
from clipseg_cli.data.annotations._kinds import json_kind, zip_kind
from clipseg_cli.data.annotations._regions import Canvas, ClassNames, about, check_size, pairs, polygon
from clipseg_cli.errors import AnnotationError
from clipseg_cli.ops.rle import coco_counts, mask_of
from clipseg_cli.types import Annotation, AnnotationFormat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clipseg_cli.ops.shapes import Patch
    from clipseg_cli.types import ReadOptions, Told


def read(path: Path, options: ReadOptions) -> Iterator[Annotation]:
    """The images of a file.

    Raises:
        AnnotationError: it is not such a file.
    """
    zipped = path.suffix.lower() == ".zip"
    data = parse_json(read_member(path, (".json",)), str(path)) if zipped else read_json(path)
    with about(str(path)):
        categories = {whole(row, "id"): text(row, "name") for row in objects(data, "categories")}
        images = by_id(objects(data, "images"), "image")
        own = defaultdict[int, list[tuple[int, dict[str, Any]]]](list)
        for number, row in enumerate(objects(data, "annotations"), start=1):
            with about(f"annotation {row.get('id', number)}"):
                if "segments_info" in row:
                    raise AnnotationError(
                        "this is COCO's panoptic format", hint="import the zip that holds its masks too"
                    )
                if (image := whole(row, "image_id")) not in images:
                    raise AnnotationError(f"there is no image {image}")
                own[image].append((number, row))
        named = [(i, text(image, "file_name"), size_of(image)) for i, image in images.items()]
    names = ClassNames(options.classes)
    for i, name, size in named:
        told = partial(_told, own.pop(i, []), categories, names, options, f"{path}: {name}")
        yield Annotation(name, size, lambda s, told=told: told(s))  # type: ignore[misc]


def by_id(rows: list[dict[str, Any]], what: str) -> dict[int, dict[str, Any]]:
    """Rows by their ids.

    Raises:
        AnnotationError: an id that two of them have.
    """
    found = dict[int, dict[str, Any]]()
    for row in rows:
        if (i := whole(row, "id")) in found:
            raise AnnotationError(f"two {what}s have the id {i}")
        found[i] = row
    return found


def size_of(image: dict[str, Any]) -> tuple[int, int]:
    """(H, W) of an image."""
    return whole(image, "height"), whole(image, "width")


def class_of(row: dict[str, Any], categories: dict[int, str], names: ClassNames) -> int:
    """The class of an annotation.

    Raises:
        AnnotationError: its category is not in the file, or no class.
    """
    if (category := whole(row, "category_id")) not in categories:
        raise AnnotationError(f"there is no category {category}")
    return names[categories[category]]


def _told(
    rows: list[tuple[int, dict[str, Any]]],
    categories: dict[int, str],
    names: ClassNames,
    options: ReadOptions,
    where: str,
    size: tuple[int, int],
) -> Told:
    canvas = Canvas(size, options, where)
    for number, row in rows:
        name = f"annotation {row.get('id', number)}"
        with about(name):
            class_id, found = class_of(row, categories, names), row.get("segmentation")
            if isinstance(found, dict):
                canvas.paint(class_id, _run_lengths(found, size), name)
            elif isinstance(found, list) and found:
                for flat in found:
                    canvas.paint(class_id, polygon(pairs(flat), size), name)
            else:
                raise AnnotationError("it has no segmentation", hint="a box alone does not say which pixels")
    return canvas.labels


def _run_lengths(found: dict[str, Any], size: tuple[int, int]) -> Patch:
    given, counts = found.get("size"), found.get("counts")
    if not isinstance(given, list) or len(given) != 2:
        raise AnnotationError("its run lengths have no size")
    sides = {"height": given[0], "width": given[1]}
    check_size(size_of(sides), size, "its run lengths are for")
    if isinstance(counts, str):
        numbers = coco_counts(counts)
    elif isinstance(counts, list) and all(type(n) is int and abs(n) < 1 << 40 for n in counts):
        numbers = np.array(counts, np.int64)
    else:
        raise AnnotationError("its run lengths are neither a text nor whole numbers")
    return 0, 0, mask_of(numbers, size[0] * size[1]).reshape(size[::-1]).T


FORMAT = AnnotationFormat(
    read,
    lambda path: "coco" in (json_kind(path), zip_kind(path)),
    (".json", ".zip"),
    summary="COCO instances: run lengths and polygons",
)
