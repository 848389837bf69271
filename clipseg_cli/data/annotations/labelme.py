"""JSON of LabelMe (wkentaro) and of X-AnyLabeling, one file for each image.

Shapes of the kinds polygon, rectangle (two corners, or four as X-AnyLabeling has them), rotation, circle and mask;
points and lines cover no pixels and are refused. Format: labelmeai/labelme@v5.5.0, labelme/utils/shape.py;
CVHub520/X-AnyLabeling, docs/en/user_guide.md.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.data.annotations._files import read_mask
from clipseg_cli.data.annotations._json import objects, read_json, text, whole
from clipseg_cli.data.annotations._kinds import json_kind
from clipseg_cli.data.annotations._regions import (
    Canvas,
    ClassNames,
    about,
    box_patch,
    check_inside,
    polygon,
    ring_of,
)
from clipseg_cli.errors import AnnotationError
from clipseg_cli.ops.shapes import ellipse_patch
from clipseg_cli.types import Annotation, AnnotationFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clipseg_cli.ops.shapes import Patch
    from clipseg_cli.types import ReadOptions, Told


def read(path: Path, options: ReadOptions) -> Iterator[Annotation]:
    """The one image of a file.

    Raises:
        AnnotationError: it is not such a file.
    """
    data = read_json(path)
    with about(str(path)):
        shapes = objects(data, "shapes")
        size = whole(data, "imageHeight"), whole(data, "imageWidth")
        # From the file to the image; a path of Windows too.
        way = text(data, "imagePath").replace("\\", "/")
        image = PurePosixPath(os.path.normpath(path.absolute().parent / way).replace(os.sep, "/"))
        names = ClassNames(options.classes)
    yield Annotation(image.as_posix(), size, partial(_told, shapes, names, options, str(path)))


def _told(
    shapes: list[dict[str, Any]], names: ClassNames, options: ReadOptions, where: str, size: tuple[int, int]
) -> Told:
    canvas = Canvas(size, options, where)
    for number, shape in enumerate(shapes, start=1):
        name = f"shape {number}"
        with about(name):
            canvas.paint(names[text(shape, "label")], _patch(shape, size), name)
    return canvas.labels


def _patch(shape: dict[str, Any], size: tuple[int, int]) -> Patch:
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if kind in ("polygon", "rotation"):
        return polygon(points, size)
    if kind not in ("rectangle", "circle", "mask"):
        raise AnnotationError(f"a {str(kind)[:20]} covers no pixels", hint="draw it as a polygon")
    if kind == "rectangle" and isinstance(points, list) and len(points) == 4:
        return polygon(points, size)
    if not isinstance(points, list) or len(points) != 2:
        raise AnnotationError(f"a {kind} has two points")
    (x, y), (right, bottom) = ring_of([*points, points[0]], size)[:2].tolist()
    if kind == "rectangle":
        return polygon([[x, y], [right, y], [right, bottom], [x, bottom]], size)
    if kind == "circle":  # its centre, and a point on it
        radius = math.hypot(right - x, bottom - y)
        check_inside(np.array([[x - radius, y - radius], [x + radius, y + radius]]), size)
        return ellipse_patch(x, y, max(radius, 1e-9), max(radius, 1e-9), 0, *size)
    return _mask(shape, (round(x), round(y), round(right), round(bottom)), size)


def _mask(shape: dict[str, Any], corners: tuple[int, int, int, int], size: tuple[int, int]) -> Patch:
    left, top, right, bottom = corners  # the last are those of the last pixel in it
    width, height = right - left + 1, bottom - top + 1
    if min(width, height) < 1 or width > size[1] or height > size[0]:
        raise AnnotationError(f"a mask of {width}x{height} does not fit an image of {size[1]}x{size[0]}")
    try:
        data = base64.b64decode(text(shape, "mask"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise AnnotationError(f"its mask is damaged: {error}") from error
    return box_patch((left, top, width, height), read_mask(data, (height, width)), size)


FORMAT = AnnotationFormat(
    read,
    lambda path: json_kind(path) == "labelme",
    (".json",),
    summary="JSON of LabelMe and X-AnyLabeling",
)
