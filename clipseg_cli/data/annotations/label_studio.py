"""Label Studio's JSON: exports (JSON and JSON_MIN), and files of predictions.

Of a task the last annotation that was not cancelled holds. In a file with annotations, tasks that have none were not
looked at and are left out; in a file without any, predictions hold, which an export names by their numbers only: such a
file says nothing. Brushes (its own run lengths), polygons,
rectangles and ellipses; other results of a task, such as choices, say nothing of pixels. Format:
labelstud.io/guide/export.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from clipseg_cli.data.annotations._json import number, objects, read_json, whole
from clipseg_cli.data.annotations._kinds import json_kind
from clipseg_cli.data.annotations._regions import (
    Canvas,
    ClassNames,
    about,
    check_inside,
    check_size,
    polygon,
)
from clipseg_cli.errors import AnnotationError
from clipseg_cli.ops.rle import brush_mask
from clipseg_cli.ops.shapes import box_ring, ellipse_patch
from clipseg_cli.types import Annotation, AnnotationFormat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clipseg_cli.ops.shapes import Patch
    from clipseg_cli.types import ReadOptions, Told

logger = logging.getLogger(__name__)

KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the names of files that are uploaded to it."""


def read(path: Path, options: ReadOptions) -> Iterator[Annotation]:
    """The images of a file.

    Raises:
        AnnotationError: it is not such a file.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise AnnotationError(f"{path} is no list of tasks")
    names = ClassNames(options.classes)
    found = list[tuple[str, bool, list[dict[str, Any]] | None]]()
    for i, task in enumerate(tasks, start=1):
        with about(f"{path}: task {task.get('id', i)}"):
            found.append((_image(task), *_results(task)))
    by_hand = any(checked for _, checked, _ in found)
    if by_hand and (left := sum(not checked for _, checked, _ in found)):
        logger.warning("%s: %d of %d tasks have no annotation and are left out", path, left, len(found))
    if found and all(results is None for _, _, results in found):
        raise AnnotationError(
            f"{path}: nobody has annotated any of its {len(found):,} tasks, and predictions are not in it",
            hint="submit annotations in Label Studio, and export JSON again",
        )
    for name, checked, results in found:
        if results is not None and (checked or not by_hand):
            told = partial(_told, results, names, options, f"{path}: {name}")
            yield Annotation(name, None, told, checked)


def _results(task: dict[str, Any]) -> tuple[bool, list[dict[str, Any]] | None]:
    """Whether a human has annotated a task, and the results that hold; None where the file does not have them."""
    if "data" not in task:  # JSON_MIN: the results lie in the task, under the names of their tags
        if task.get("annotation_id", 0) is None:
            return False, None
        lists = [value for value in task.values() if isinstance(value, list)]
        rows = [row for value in lists for row in value if isinstance(row, dict) and _kind(row)]
        return True, [{**row, "type": _kind(row), "value": row} for row in rows]
    done = [row for row in _rows(task, "annotations") if not row.get("was_cancelled")]
    if done:
        return True, objects(done[-1], "result")
    said = task.get("predictions")
    if isinstance(said, list) and said and all(type(number) is int for number in said):
        return False, None
    said = _rows(task, "predictions")
    return False, objects(said[-1], "result") if said else []


def _rows(task: dict[str, Any], key: str) -> list[dict[str, Any]]:
    return objects(task, key) if task.get(key) else []


def _kind(row: dict[str, Any]) -> str:
    return next((kind for kind in KINDS if kind in row), "")


def _image(task: dict[str, Any]) -> str:
    """What the image of a task is called: a path, from its URL."""
    data = task.get("data", task)
    url = data.get("image") if isinstance(data, dict) else None
    if not isinstance(url, str):
        texts = (
            [v for v in data.values() if isinstance(v, str) and "/" in v] if isinstance(data, dict) else []
        )
        if len(texts) != 1:
            raise AnnotationError("it does not say which image it is about: 'image' is missing")
        url = texts[0]
    try:
        parts = urlsplit(url)
        inside = (
            parse_qs(parts.query).get("d", [""])[0] if "local-files" in parts.path else unquote(parts.path)
        )
    except ValueError as error:
        raise AnnotationError(f"'{url[:60]}' is no address of an image") from error
    folder, _, name = inside.rpartition("/")
    return f"{folder}/{_UPLOADED.sub('', name)}" if "/upload/" in f"/{inside}" else inside


def _told(
    results: list[dict[str, Any]],
    names: ClassNames,
    options: ReadOptions,
    where: str,
    size: tuple[int, int],
) -> Told:
    canvas = Canvas(size, options, where)
    for i, row in enumerate(results, start=1):
        name = f"result {row.get('id', i)}"
        kind = str(row.get("type", ""))
        if not kind.endswith("labels"):
            continue
        with about(name):
            if kind not in KINDS:
                raise AnnotationError(f"{kind} cover no pixels", hint="draw it with a brush or as a polygon")
            check_size((whole(row, "original_height"), whole(row, "original_width")), size, "it is for")
            if row.get("image_rotation"):
                raise AnnotationError("the image was turned in Label Studio, the label map is not")
            value = row.get("value")
            labels = value.get(kind) if isinstance(value, dict) else None
            if not isinstance(value, dict) or not isinstance(labels, list) or len(labels) != 1:
                raise AnnotationError(
                    f"it has {len(labels) if isinstance(labels, list) else 0} labels, not one"
                )
            canvas.paint(names[str(labels[0])], _patch(kind, value, size), name)
    return canvas.labels


def _patch(kind: str, value: dict[str, Any], size: tuple[int, int]) -> Patch:
    height, width = size
    if kind == "brushlabels":
        data = value.get("rle")
        if value.get("format", "rle") != "rle" or not isinstance(data, list):
            raise AnnotationError("a brush without run lengths")
        if not all(type(byte) is int and 0 <= byte < 256 for byte in data):
            raise AnnotationError("its run lengths are no bytes")
        return 0, 0, brush_mask(np.array(data, np.uint8), height * width).reshape(size)
    share = np.array([width, height]) / 100  # everything else is in per cent
    if kind == "polygonlabels":
        try:
            corners = np.array(value.get("points"), np.float64) * share
        except (ValueError, TypeError) as error:
            raise AnnotationError("its corners are no pairs of numbers") from error
        return polygon(corners, size)
    x, y = number(value, "x") * share[0], number(value, "y") * share[1]
    degrees = number(value, "rotation", 0)
    if kind == "rectanglelabels":
        wide, high = number(value, "width") * share[0], number(value, "height") * share[1]
        return polygon(box_ring(x, y, wide, high, degrees, about_centre=False), size)
    radius_x, radius_y = number(value, "radiusX") * share[0], number(value, "radiusY") * share[1]
    if min(radius_x, radius_y) <= 0:
        raise AnnotationError("an ellipse without a radius")
    check_inside(np.array([[x, y]]), size)
    return ellipse_patch(x, y, radius_x, radius_y, degrees, height, width)


FORMAT = AnnotationFormat(
    read,
    lambda path: json_kind(path) == "label-studio",
    (".json",),
    summary="JSON that Label Studio exports, or imports as predictions",
)
