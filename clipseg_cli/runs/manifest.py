"""`manifest.json`: what a run folder was made with, and what came out; checked before anyone builds on it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clipseg_cli import __version__
from clipseg_cli.config import with_present_names
from clipseg_cli.errors import RunError
from clipseg_cli.outputs import json_safe
from clipseg_cli.utils.files import write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

FILE = "manifest.json"
FORMAT = 1
"""Raised when an older clipseg could not read a run any more, or misread it."""


@dataclass(frozen=True)
class Manifest:
    """The record of one run.

    Attributes:
        identity: everything that the result depends on; a run goes on only where all of it is equal.
        result: counts and shares; empty until the run is complete.
        history: what the run took up since it was begun, the oldest first; see `runs.growth`.
    """

    identity: Mapping[str, Any]
    result: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()

    @property
    def complete(self) -> bool:
        """Whether every image has been dealt with."""
        return bool(self.result)


def is_written(manifest: Manifest, folder: Path) -> bool:
    """Whether the manifest of a run folder says exactly this already."""
    there = read_manifest(folder)
    return there is not None and _content(there) == _content(manifest)


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """Write `manifest.json` into the run folder, with a checksum over its own content.

    Raises:
        OutputError: it cannot be written.
    """
    content = _content(manifest)
    return write_json(folder / FILE, {**content, "checksum": _checksum(content)})


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run folder, its options by the names that they have now; None where there is none.

    Raises:
        RunError: it is damaged, was edited, or is in a format of another version.
    """
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON: {error}", hint=_ANEW) from error
    if not isinstance(data, dict) or "format" not in data:
        raise RunError(f"{path} is not a manifest of clipseg", hint=_ANEW)
    if data["format"] != FORMAT:
        raise RunError(
            f"{path} has format {data['format']}, made by clipseg {data.get('clipseg', 'unknown')}; "
            f"this is clipseg {__version__}, which reads format {FORMAT}",
            hint=_ANEW,
        )
    checksum = data.pop("checksum", None)
    if checksum != _checksum(data):
        raise RunError(f"{path} does not agree with its own checksum: it was edited or damaged", hint=_ANEW)
    result, history = data.pop("result", None), data.pop("history", [])
    if not isinstance(result, dict) or not isinstance(history, list):
        raise RunError(f"{path} is not a manifest of clipseg", hint=_ANEW)
    identity = {key: value for key, value in data.items() if key not in _HEAD}
    named = {
        key: with_present_names(identity[key]) for key in _BY_NAME if isinstance(identity.get(key), dict)
    }
    return Manifest(identity | named, result, history)


_BY_NAME = ("options", "numbers")
_NUMBERS = "numbers."
_HEAD = ("format", "clipseg", "complete")
_ANEW = "restore it, or start anew with another --name"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, as in "model.name: ViT-B-16, now RN50"; options first.

    The numbers of a training are what became of options, and are told in their place.
    """
    found = dict(_differences("", json_safe(before), json_safe(now)))
    for name in [name for name in found if name.startswith(_NUMBERS)]:
        number = name.removeprefix(_NUMBERS)
        option = "--" + number.replace("_", "-")
        found[option if option in found else number.replace("_", " ")] = found.pop(name)
    texts = [f"{name}: {change}" for name, change in found.items()]
    return sorted(texts, key=lambda text: not text.startswith("--"))


def refuse_changes(folder: Path, before: Manifest, identity: Mapping[str, Any]) -> None:
    """A run goes on only with the options that it was made with.

    Args:
        folder: of the run.
        before: what is written there.
        identity: of what would go on with it.

    Raises:
        RunError: they differ; the message names the first differences.
    """
    changed = differences(before.identity, identity)
    if changed:
        more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise RunError(
            f"{folder} was made with other options: {'; '.join(changed[:3])}{more}",
            hint="use the same options to go on, or another --name to start anew",
        )


def _differences(where: str, before: Any, now: Any) -> Iterator[tuple[str, str]]:
    """Name of each entry that differs, and how."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*now, *before)):
            yield from _differences(_below(where, key), before.get(key), now.get(key))
    elif _are_rows(before) and _are_rows(now):
        if len(before) != len(now):
            yield where, f"{len(before)}, now {len(now)}"
        for i, (old, new) in enumerate(zip(before, now, strict=False)):
            yield from _differences(f"{where}[{i}]", old, new)
    elif before != now:
        yield where, f"{_short(before)}, now {_short(now)}"


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _below(where: str, key: str) -> str:
    """Name of an entry; an option is called as the user writes it."""
    if where == "options" or (not where and key == "method"):
        return "--" + key.replace("_", "-")
    return f"{where}.{key}" if where else key


def _short(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "not given"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _content(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "clipseg": __version__,
        "complete": manifest.complete,
        **json_safe(manifest.identity),
        **({"history": json_safe(manifest.history)} if manifest.history else {}),
        "result": json_safe(manifest.result),
    }


def _checksum(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
