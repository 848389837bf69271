"""XML of CVAT, "CVAT for images 1.1", also in its zip: masks, polygons, boxes and ellipses, by their `z_order`.

Run lengths go along the rows of the box of a mask. Lines, points and tracks of videos are refused. Format:
docs.cvat.ai/docs/manual/advanced/xml_format.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from xml.parsers import expat

import numpy as np

from clipseg_cli.data.annotations._files import MOST_BYTES, read_limited, read_member
from clipseg_cli.data.annotations._json import number, text, whole
from clipseg_cli.data.annotations._kinds import CVAT_FILE, zip_kind
from clipseg_cli.data.annotations._regions import (
    Canvas,
    ClassNames,
    about,
    box_patch,
    check_inside,
    polygon,
)
from clipseg_cli.errors import AnnotationError
from clipseg_cli.ops.rle import mask_of
from clipseg_cli.ops.shapes import box_ring, ellipse_patch
from clipseg_cli.types import Annotation, AnnotationFormat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clipseg_cli.ops.shapes import Patch
    from clipseg_cli.types import ReadOptions, Told

    Element = tuple[str, dict[str, str]]

DRAWN = ("mask", "polygon", "box", "ellipse")
THIN = ("polyline", "points", "cuboid", "skeleton", "track")
_CHUNK = 1 << 20
_HEAD = 4096


class _Images:
    """Handlers of a parser that collect images, each with its shapes."""

    def __init__(self) -> None:
        self.done: list[tuple[dict[str, str], list[Element]]] = []
        self._open: tuple[dict[str, str], list[Element]] | None = None
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._refuse  # where entities would be declared

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "image":
            self._open = attributes, []
        elif name in THIN and (self._open or name == "track"):
            hint = "export it as CVAT for images" if name == "track" else "draw it as a mask or a polygon"
            raise AnnotationError(
                f"line {self.parser.CurrentLineNumber}: a {name} covers no pixels", hint=hint
            )
        elif name in DRAWN and self._open:
            self._open[1].append((name, attributes))

    def _end(self, name: str) -> None:
        if name == "image" and self._open:
            self.done.append(self._open)
            self._open = None

    @staticmethod
    def _refuse(*_: object) -> None:
        raise AnnotationError("it declares a document type, which no file of CVAT does")


def read(path: Path, options: ReadOptions) -> Iterator[Annotation]:
    """The images of a file.

    Raises:
        AnnotationError: it is not such a file, or it is cut short.
    """
    names = ClassNames(options.classes)
    for attributes, shapes in _images(path):
        with about(str(path)):
            name = text(dict(attributes), "name")
        with about(f"{path}: {name}"):
            size = whole(dict(attributes), "height"), whole(dict(attributes), "width")
        yield Annotation(name, size, partial(_told, shapes, names, options, f"{path}: {name}"))


def _images(path: Path) -> Iterator[tuple[dict[str, str], list[Element]]]:
    images = _Images()
    zipped = path.suffix.lower() == ".zip"
    data = read_member(path, (CVAT_FILE,)) if zipped else read_limited(path, MOST_BYTES)
    try:
        for start in range(0, len(data), _CHUNK):
            images.parser.Parse(data[start : start + _CHUNK], False)
            yield from images.done
            images.done.clear()
        images.parser.Parse(b"", True)
        yield from images.done
    except expat.ExpatError as error:
        raise AnnotationError(f"{path} is cut short, or not XML: {error}", hint="export it again") from error
    except AnnotationError as error:
        raise AnnotationError(f"{path}: {error.message}", hint=error.hint) from error


def _told(
    shapes: list[Element], names: ClassNames, options: ReadOptions, where: str, size: tuple[int, int]
) -> Told:
    canvas = Canvas(size, options, where)
    numbered = list(enumerate(shapes, start=1))
    with about("its shapes"):
        numbered.sort(key=lambda entry: _float(entry[1][1], "z_order", "0"))
    for number_, (kind, attributes) in numbered:
        name = f"{kind} {number_}"
        with about(name):
            canvas.paint(names[text(dict(attributes), "label")], _patch(kind, attributes, size), name)
    return canvas.labels


def _patch(kind: str, attributes: dict[str, str], size: tuple[int, int]) -> Patch:
    if kind == "mask":
        left, top, width, height = (
            whole(dict(attributes), key) for key in ("left", "top", "width", "height")
        )
        if width > size[1] or height > size[0]:
            raise AnnotationError(f"a mask of {width}x{height} in an image of {size[1]}x{size[0]}")
        try:
            counts = np.array([int(part) for part in attributes.get("rle", "").split(",")], np.int64)
        except (ValueError, OverflowError):
            raise AnnotationError("its run lengths are no whole numbers") from None
        mask = mask_of(counts, width * height).reshape(height, width)
        return box_patch((left, top, width, height), mask, size)
    if kind == "polygon":
        corners = [pair.split(",") for pair in attributes.get("points", "").split(";")]
        return polygon(corners, size)
    degrees = _float(attributes, "rotation", "0")
    if kind == "box":
        left_, top_, right, bottom = (_float(attributes, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        return polygon(box_ring(left_, top_, right - left_, bottom - top_, degrees, about_centre=True), size)
    x, y, radius_x, radius_y = (_float(attributes, key) for key in ("cx", "cy", "rx", "ry"))
    if min(radius_x, radius_y) <= 0:
        raise AnnotationError("an ellipse without a radius")
    check_inside(np.array([[x, y]]), size)
    return ellipse_patch(x, y, radius_x, radius_y, degrees, *size)


def _float(attributes: dict[str, str], key: str, default: str | None = None) -> float:
    written = attributes.get(key, default)
    try:
        return number({key: None if written is None else float(written)}, key)
    except ValueError:
        raise AnnotationError(f"'{key}' is '{written}', not a number") from None


def _recognise(path: Path) -> bool:
    if path.suffix.lower() != ".xml" or not path.is_file():
        return zip_kind(path) == "cvat"
    try:
        with path.open("rb") as file:
            return b"<annotations" in file.read(_HEAD)
    except OSError:
        return False


FORMAT = AnnotationFormat(read, _recognise, (".xml", ".zip"), summary="XML of CVAT, CVAT for images 1.1")
