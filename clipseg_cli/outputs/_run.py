"""`classes.json`: what the ids in a folder of results mean, and with what they were made."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import IGNORE_INDEX
from clipseg_cli.errors import OutputError
from clipseg_cli.outputs._colors import class_colors, hex_color, voc_palette
from clipseg_cli.utils.files import ANOTHER_FOLDER, output_errors, write_json
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from clipseg_cli.types import ClassList, RunInfo


FILE = "classes.json"
MOST_FOLDERS = 1000
LISTED = 8


def write_run_info(run: RunInfo, out: Path) -> Path:
    """Write `classes.json` into the folder `out` and return its path.

    Keys: classes (see class_table_rows), background (id or null), method, options, model, versions; and `earlier`, a
    list of method, options, model and versions of runs before, where they were others.

    Raises:
        OutputError: the file cannot be written, or the folder holds maps of other classes.
    """
    before = check_class_list(out, run.classes)
    options = json_safe(run.options)
    made_with = {
        "method": options.get("method"),
        "options": options,
        "model": json_safe(run.model),
        "versions": json_safe(run.versions),
    }
    earlier = [entry for entry in _earlier(before) if entry != made_with]
    data = {
        "classes": class_table_rows(run.classes),
        "background": run.classes.background,
        **made_with,
        **({"earlier": earlier} if earlier else {}),
    }
    return write_json(out / FILE, data)


def _earlier(before: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """With what the maps in a folder were made, the last run first."""
    if before is None:
        return []
    last = {key: before.get(key) for key in ("method", "options", "model", "versions")}
    listed = before.get("earlier")
    return [last, *(listed if isinstance(listed, list) else [])]


def check_class_list(out: Path, classes: ClassList) -> dict[str, Any] | None:
    """What `classes.json` of a folder says, once it is known to be about the same classes; None without one.

    One folder holds maps of one class list: with another one in `classes.json` the older maps would mean something
    else.

    Raises:
        OutputError: the folder holds maps of other classes, or the file is somebody else's.
    """
    path = out / FILE
    with output_errors(path):
        if not path.is_file():
            return None
        text = path.read_bytes()
    try:
        data: dict[str, Any] = json.loads(text)
        there = [(entry["name"], tuple(entry["words"])) for entry in data["classes"]]
        own = "clipseg" in data["versions"]
    except (ValueError, LookupError, TypeError, RecursionError):
        own = False
    if not own:
        raise OutputError(
            f"{path} was not made by clipseg and would be written over",
            hint=f"move it away, or {ANOTHER_FOLDER}",
        )
    here = [
        (json_safe(name), tuple(json_safe(w))) for name, w in zip(classes.names, classes.aliases, strict=True)
    ]
    if (there, data.get("background")) != (here, classes.background):
        raise OutputError(
            f"{out} holds label maps of other classes: {_listed(there)}; now they would be {_listed(here)}",
            hint=f"one folder has one class list: {ANOTHER_FOLDER}",
        )
    return data


def folder_for(out: Path, classes: ClassList) -> Path:
    """A folder, or the first of those numbered after it (`out-2`, `out-3`) that holds no maps of other classes."""
    for number in range(1, MOST_FOLDERS):
        folder = out if number == 1 else out.with_name(f"{out.name}-{number}")
        try:
            check_class_list(folder, classes)
        except OutputError:
            continue
        return folder
    return out


def _listed(classes: Sequence[tuple[str, Sequence[str]]]) -> str:
    """As in "0 background, 1 cat (kitten), 2 dog"; cut where there are many."""
    texts = []
    for i, (name, words) in enumerate(classes):
        others = [word for word in words if word != name]
        texts.append(f"{i} {name}" + (f" ({'|'.join(others)})" if others and len(others) < LISTED else ""))
    return listed(texts, LISTED)


def class_table_rows(classes: ClassList) -> list[dict[str, Any]]:
    """One row for each class in label order: id, name, words, color, overlay_color.

    `color` is that of the palette in the label PNG, None where ids need 16 bits and there is no palette;
    `overlay_color` is the one in overlays, which colour-blind people can tell apart.
    """
    palette, shown = voc_palette(), class_colors(len(classes), classes.background)
    narrow = len(classes) <= IGNORE_INDEX
    return [
        {
            "id": i,
            "name": json_safe(name),
            "words": json_safe(words),
            "color": hex_color(palette[i]) if narrow else None,
            "overlay_color": hex_color(shown[i]),
        }
        for i, (name, words) in enumerate(zip(classes.names, classes.aliases, strict=True))
    ]


def json_safe(value: Any) -> Any:
    """`value` as JSON can hold it: paths, devices and the like as text, NaN and infinity as null."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, Mapping):
        return {str(json_safe(key)): json_safe(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: json_safe(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Set):
        return sorted((json_safe(item) for item in value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [json_safe(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return json_safe(value.tolist())
    return _encodable(value.as_posix() if isinstance(value, Path) else str(value))


def _encodable(text: str) -> str:
    """File names that are not UTF-8 reach Python as lone surrogates, which no JSON file can hold."""
    return text.encode(errors="replace").decode()
