"""What `--memory` names, as far as it can be said without weights: its kind, and whether it fits all other options."""

from __future__ import annotations

import dataclasses
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.errors import RunError, UsageError
from clipseg_cli.inference.regions import reads_names
from clipseg_cli.memory.files import FACTS, LABELS, REGIONS, read_facts

if TYPE_CHECKING:
    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.memory.files import Facts
    from clipseg_cli.types import Method

SIZES = ("short_side", "window", "stride")
"""Options that a bank brings with it: what it holds of one size holds at that size."""


def bank_path(text: str) -> Path:
    """The folder that `--memory` names."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  (leaves the home of an unknown user as it is written)


def facts_of(text: str) -> Facts:
    """What a bank says of itself.

    Raises:
        RunError: it is none, damaged, unfinished, empty, or of a kind that this clipseg does not know.
    """
    folder = bank_path(text)
    try:
        there = (folder / FACTS).stat()
        facts = _facts(folder, (there.st_ino, there.st_size, there.st_mtime_ns))
    except OSError:
        facts = _facts(folder, None)
    if facts.kind not in (LABELS, REGIONS):
        raise RunError(
            f"{folder} is a bank of {facts.kind}, which this clipseg does not know",
            hint="make it anew with clipseg index, into another --out",
        )
    return facts


@lru_cache(maxsize=2)
def _facts(folder: Path, version: tuple[int, int, int] | None) -> Facts:
    """What a bank says of itself; read once as long as its file does not change, since a command asks several times."""
    del version
    facts = read_facts(folder)
    assert facts is not None  # or else it would have been said
    return facts


def memory_kind(text: str) -> str:
    """What a bank remembers: "labels", "regions", or "" where none is named.

    Raises:
        RunError: as `facts_of`.
    """
    return facts_of(text).kind if text else ""


def reading_of(config: InferenceConfig) -> dict[str, Any]:
    """What of the options decides what is read of an image."""
    return {
        "model": config.model,
        "method": config.method_name.replace("-", "_"),
        "protocol": config.protocol,
    }


def with_memory(config: InferenceConfig, method: Method) -> InferenceConfig:
    """The options with what the bank brings: its sizes and its source of regions, where the user chose none.

    Raises:
        RunError: `--memory` names no bank.
        UsageError: it was made in another way, or the method reads nothing densely.
    """
    if not config.memory:
        return config
    if method.pyramid is not None:
        raise UsageError(
            f"--memory knows patches, and --method {config.method_name} looks at whole crops",
            hint="choose another --method, such as maskclip",
        )
    facts = facts_of(config.memory)
    there, own = facts.identity["reading"], reading_of(config)
    # Where regions are remembered, the method and the protocol may be others: vectors live in the same spaces.
    for name in own if facts.kind == LABELS else ("model",):
        _require_same(config, name, there.get(name), own[name])
    changed: dict[str, Any] = {}
    if facts.kind == REGIONS:
        guide = facts.identity["guide"]
        _require_same(config, "guide", guide["name"] if guide else "", config.guide)
        source = facts.identity["regions"]["option"]
        if not config.regions and not reads_names(source):  # maps in a folder are of the bank's own images
            changed["regions"] = source
    if there == own or there.get("protocol") == own["protocol"]:
        sizes = facts.identity["sizes"]
        changed |= {name: sizes[name] for name in SIZES if getattr(config, name) is None}
    return dataclasses.replace(config, **changed)


def _require_same(config: InferenceConfig, name: str, there: Any, value: Any) -> None:
    if there == value:
        return
    folder = bank_path(config.memory)
    made = f"with --{name} {there}" if there else f"without --{name}"
    raise UsageError(
        f"{folder} was made {made}, not "
        + (f"with --{name} {value}" if not there else str(value or "without")),
        hint=f"add --{name} {there}, or index again"
        if there
        else f"leave out --{name}, or index again with it",
    )
