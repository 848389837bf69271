"""Which of several formats a file of JSON or an archive is of, looked at once for all of them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from clipseg_cli.data.annotations._files import open_archive
from clipseg_cli.data.annotations._json import read_json
from clipseg_cli.errors import AnnotationError

if TYPE_CHECKING:
    from pathlib import Path

REVIEW = "clipseg-review"
CVAT_FILE = "annotations.xml"
"""In an archive that CVAT exports."""


def json_kind(path: Path) -> str:
    """One of coco, labelme, label-studio or review; "" for anything else, and for what is no JSON."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return ""
    stat = path.stat()
    return _json_kind(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1)
def _json_kind(path: Path, changed: int, size: int) -> str:
    del changed, size  # a file that was written again is another one
    try:
        return _kind_of(read_json(path))
    except AnnotationError:
        return ""


def _kind_of(data: Any) -> str:
    if isinstance(data, list):
        tasks = bool(data) and all(isinstance(task, dict) for task in data)
        return "label-studio" if tasks and ("data" in data[0] or "image" in data[0]) else ""
    if not isinstance(data, dict):
        return ""
    if data.get("format") == REVIEW:
        return "review"
    if "shapes" in data and "imagePath" in data:
        return "labelme"
    if {"images", "annotations", "categories"} <= data.keys():
        return "coco"
    return ""


def zip_kind(path: Path) -> str:
    """One of voc, coco-panoptic, cvat and coco; "" for anything else, and for what is no zip."""
    if path.suffix.lower() != ".zip" or not path.is_file():
        return ""
    try:
        with open_archive(path) as archive:
            names = archive.names
    except AnnotationError:
        return ""
    if any(name.rpartition("/")[2] == "labelmap.txt" for name in names):
        return "voc"
    if any(panoptic_masks(name, names) for name in names):
        return "coco-panoptic"
    if any(name.endswith(CVAT_FILE) for name in names):
        return "cvat"
    return "coco" if any(name.endswith(".json") for name in names) else ""


def panoptic_masks(name: str, names: list[str]) -> str:
    """The folder of the masks that a JSON in an archive is about, with a slash behind it; "" where there is none."""
    folder = name.removesuffix(".json") + "/"
    return folder if name.endswith(".json") and any(n.startswith(folder) for n in names) else ""
