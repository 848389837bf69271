"""The command that makes a run again, from what its record says."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import PseudolabelConfig, SegmentConfig, options_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.runs.manifest import Manifest
    from clipseg_cli.types import RunInfo

IMAGES = "IMAGES"
"""What stands for images whose place is not recorded."""

_NOT_SAID = ("dataset", "device", "workers")
"""An argument, and options of the machine rather than of the labels."""


def command_of_run(folder: Path, manifest: Manifest) -> str:
    """The line that makes a run of `pseudolabel`, for a shell; options that have their defaults are left out."""
    known = manifest.identity
    data = known["dataset"]
    options = {**known["options"], "method": known["method"], "out": folder.parent, "name": folder.name}
    options |= {"benchmark": data["benchmark"], "split": data["split"]}
    if isinstance(options.get("unseen"), list):
        options["unseen"] = ",".join(options["unseen"])
    closed = known["background"] is None
    return _line("pseudolabel", data["root"], PseudolabelConfig(dataset=data["root"]), options, closed=closed)


def command_of_folder(run: RunInfo, images: str) -> str:
    """The same for a folder of `segment`.

    Args:
        run: what its `classes.json` says; without options where another tool made the labels.
        images: where they are, as far as that is known.

    Returns:
        "" where nothing is recorded.
    """
    if not run.options:
        return ""
    closed = run.classes.background is None
    return _line("segment", images or IMAGES, SegmentConfig(), run.options, closed=closed)


def _line(
    command: str, subject: str, defaults: InferenceConfig, options: Mapping[str, Any], *, closed: bool
) -> str:
    fields = {field.name: field.default for field in dataclasses.fields(defaults)}
    own = {name: value for name, value in options.items() if name in fields and value is not None}
    plain = dataclasses.replace(
        defaults, **{name: own[name] for name in ("model", "protocol", "student") if name in own}
    )
    # What "auto" stood for is recorded, and need not be said again.
    if "method" in own:
        saliency = dataclasses.replace(plain, method=own["method"]).saliency_name(not closed)
        fields |= {"method": plain.method_name, "saliency": saliency}
    words = ["clipseg", command, subject]
    for name, option in options_of(type(defaults)).items():
        if name in own and name not in _NOT_SAID and _text(own[name]) != _text(fields[name]):
            words += _words(option.flag(name), own[name], fields[name])
    return " ".join(shlex.quote(word) for word in words)


def _words(flag: str, value: Any, default: Any) -> Iterator[str]:
    if isinstance(default, bool):
        yield from (flag,) if value else ()
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from (flag, str(one))
    else:
        yield from (flag, _text(value))


def _text(value: Any) -> str:
    """As it is typed, and as it is compared: a record has lists for tuples and texts for paths."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
