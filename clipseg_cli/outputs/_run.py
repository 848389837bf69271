"""`classes.json`: what the ids in a folder of results mean, and with what they were made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.outputs._colors import class_colors, hex_color
from clipseg_cli.utils.files import write_json

if TYPE_CHECKING:
    from clipseg_cli.types import ClassList, RunInfo


def write_run_info(run: RunInfo, out: Path) -> Path:
    """Write `classes.json` into the folder `out` and return its path.

    Keys: classes (see class_table_rows), background (id or null), method, options, model, versions.

    Raises:
        OutputError: the file cannot be written.
    """
    options = json_safe(run.options)
    data = {
        "classes": class_table_rows(run.classes),
        "background": run.classes.background,
        "method": options.get("method"),
        "options": options,
        "model": json_safe(run.model),
        "versions": json_safe(run.versions),
    }
    return write_json(out / "classes.json", data)


def class_table_rows(classes: ClassList) -> list[dict[str, Any]]:
    """One row for each class in label order: id, name, words, color (as in overlays, "#rrggbb")."""
    colors = class_colors(len(classes), classes.background)
    return [
        {"id": i, "name": json_safe(name), "words": json_safe(words), "color": hex_color(colors[i])}
        for i, (name, words) in enumerate(zip(classes.names, classes.aliases, strict=True))
    ]


def json_safe(value: Any) -> Any:
    """`value` as JSON can hold it: paths, devices and the like as text, NaN and infinity as null."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(json_safe(key)): json_safe(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: json_safe(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Set):
        return sorted((json_safe(item) for item in value), key=str)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [json_safe(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return json_safe(value.tolist())
    text = value.as_posix() if isinstance(value, Path) else str(value)
    # File names that are not UTF-8 reach Python as lone surrogates, which no JSON file can hold.
    return text.encode(errors="replace").decode()
