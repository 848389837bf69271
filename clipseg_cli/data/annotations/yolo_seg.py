"""A data set of Ultralytics' YOLO segmentation: `data.yaml`, and a text file of polygons for each image.

Text files lie below a folder `labels`, with `train`, `val` or `test` behind or before it. Corners are shares of width
and height; an outline that touches itself is filled by the even-odd rule. Format:
docs.ultralytics.com/datasets/segment.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from clipseg_cli.data.annotations._files import read_limited
from clipseg_cli.data.annotations._regions import Canvas, ClassNames, about, pairs, polygon
from clipseg_cli.errors import AnnotationError
from clipseg_cli.types import Annotation, AnnotationFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clipseg_cli.types import ReadOptions, Told

FILE, LABELS = "data.yaml", "labels"
PARTS = ("train", "val", "test")
_MOST_TEXT = 1 << 24  # bytes of one text file


def read(path: Path, options: ReadOptions) -> Iterator[Annotation]:
    """The images of a data set, or of one of its text files.

    Raises:
        AnnotationError: there is no `data.yaml` that says what the numbers of the classes mean.
    """
    one = path.suffix.lower() == ".txt" and path.is_file()
    home = next((p for p in path.absolute().parents if (p / FILE).is_file()), path.parent) if one else path
    home = home.parent if home.is_file() else home
    if not (home / FILE).is_file():
        raise AnnotationError(f"{path} lies below no {FILE}, which says what the numbers of the classes mean")
    numbers = _numbers(home / FILE)
    files = [path.absolute()] if one else sorted(home.rglob("*.txt"))
    named = [(file, name) for file in files if (name := _image(file.relative_to(home)))]
    if not named:
        raise AnnotationError(f"{path} holds no text file below a folder '{LABELS}'")
    names = ClassNames(options.classes)
    for file, name in named:
        yield Annotation(name, None, partial(_told, file, numbers, names, options))


def _image(inside: Path) -> str:
    """What the image of a text file is called; empty where it is about none."""
    parts = inside.parts
    if LABELS not in parts[:-1]:
        return ""
    behind = parts[parts.index(LABELS) + 1 :]
    return PurePosixPath(*(behind[1:] if len(behind) > 1 and behind[0] in PARTS else behind)).as_posix()


def _numbers(path: Path) -> dict[int, str]:
    try:
        data: Any = yaml.safe_load(read_limited(path, _MOST_TEXT))
        found = data["names"]
        rows = enumerate(found) if isinstance(found, list) else found.items()
        return {int(number): str(name) for number, name in rows}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise AnnotationError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise AnnotationError(f"{path} has no 'names' that say what the numbers mean") from error


def _told(
    file: Path, numbers: dict[int, str], names: ClassNames, options: ReadOptions, size: tuple[int, int]
) -> Told:
    canvas = Canvas(size, options, str(file))
    lines = read_limited(file, _MOST_TEXT).decode("utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        with about(f"line {number}"):
            first, *rest = line.split()
            try:
                class_number = int(first)
                values = [float(value) for value in rest]
            except ValueError:
                raise AnnotationError("it is not a number of a class and corners") from None
            if class_number not in numbers:
                raise AnnotationError(f"{FILE} names no class {class_number}")
            if len(values) == 4:
                raise AnnotationError("it is a box, which does not say which pixels")
            corners = np.array(pairs(values), np.float64) * size[::-1]
            canvas.paint(names[numbers[class_number]], polygon(corners, size), f"line {number}")
    return canvas.labels


def _recognise(path: Path) -> bool:
    if path.is_dir():
        return (path / FILE).is_file()
    if path.name == FILE:
        return path.is_file()
    return path.suffix.lower() == ".txt" and LABELS in path.absolute().parts


FORMAT = AnnotationFormat(
    read, _recognise, (".txt",), FILE, summary="a data set of YOLO segmentation with its data.yaml"
)
