"""Label PNGs: those of clipseg, which say themselves what their numbers mean, and plain ones of any tool.

In a plain one a pixel is the id of its class, as in the label maps that are there; 255, or 65535 beyond 255 classes,
is none.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import ignore_value
from clipseg_cli.data.annotations._maps import class_map
from clipseg_cli.data.labels import label_texts, read_values
from clipseg_cli.errors import AnnotationError, DatasetError
from clipseg_cli.types import Annotation, AnnotationFormat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clipseg_cli.types import ReadOptions, Told

CHUNK = "clipseg"
"""The text chunk in which a label PNG says what its numbers mean."""


def read(path: Path, options: ReadOptions) -> Iterator[Annotation]:
    """The one image of a file."""
    yield Annotation(path.as_posix(), None, partial(_told, path, options))


def _told(path: Path, options: ReadOptions, size: tuple[int, int]) -> Told:
    try:
        facts = _facts(path)
        values = read_values(path, size=size, source="the label map")
    except DatasetError as error:
        raise AnnotationError(error.message, hint=error.hint) from error
    names = facts.get("classes")
    if not isinstance(names, list):
        return class_map(values, options.classes, ignore=ignore_value(len(options.classes)))
    return class_map(values, options.classes, [str(n) for n in names], ignore=ignore_value(len(names)))


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(label_texts(path).get(CHUNK, "{}"))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _recognise(path: Path) -> bool:
    if path.suffix.lower() != ".png" or not path.is_file():
        return False
    try:
        return "confidence" not in _facts(path)
    except DatasetError:
        return True  # what is wrong with it is said when it is read


FORMAT = AnnotationFormat(
    read, _recognise, (".png",), summary="label PNGs: of clipseg, or plain ones with class ids"
)
