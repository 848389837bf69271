"""`human.jsonl`: which labels of a folder a human has corrected or checked, who, when and from what.

One line of JSON for each such label, in the order of names. A line holds as long as the label PNG is the one that it
is about: whoever edits that afterwards, or has it made anew, takes the mark away. The maps that were there before lie
in `.human`, see `human_changes`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clipseg_cli.errors import RunError
from clipseg_cli.runs.manifest import FILE as MANIFEST
from clipseg_cli.runs.records import fingerprint
from clipseg_cli.runs.summary import LABELS, path_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "human.jsonl"
STORE, BEFORE = ".human", "before"

Kind = Literal["corrected", "checked"]


@dataclass(frozen=True)
class HumanRecord:
    """One label that a human answers for.

    Attributes:
        image: its name, as that of its label PNG without suffix.
        kind: "corrected" where pixels were changed, now or by an earlier import; else "checked".
        by: who.
        when: in UTC, as in "2026-05-01T12:00:00Z".
        source: the file that it came from.
        format: of that file.
        changed: pixels that the import changed.
        hold_out: kept out of training.
        label: fingerprint of the label PNG.
        number: of the import.
        machine: number of the first import that changed the label, and so keeps the machine's; 0 for none.
    """

    image: str
    kind: Kind
    by: str
    when: str
    source: str
    format: str
    changed: int
    hold_out: bool
    label: str
    number: int
    machine: int

    def is_sound(self) -> bool:
        """Whether every field has its type; a line may have been damaged or edited."""
        texts = (self.image, self.by, self.when, self.source, self.format, self.label)
        numbers = (self.changed, self.number, self.machine)
        return (
            all(isinstance(text, str) and "\0" not in text for text in texts)
            and all(type(number) is int and number >= 0 for number in numbers)
            and self.kind in ("corrected", "checked")
            and isinstance(self.hold_out, bool)
        )


def home_of(folder: Path) -> Path:
    """The folder of a run, where its folder of labels may have been named."""
    inside = folder.name == LABELS and (folder.parent / MANIFEST).is_file()
    return folder.parent if inside and not (folder / MANIFEST).is_file() else folder


def label_file(home: Path, image: str) -> Path:
    """Where the label PNG of an image lies, in a run of `pseudolabel` or a folder of `segment`."""
    is_run = (home / MANIFEST).is_file() and (home / LABELS).is_dir()
    return path_of(home, image) if is_run else home / f"{image}.png"


def stored_file(home: Path, number: int, image: str) -> Path:
    """Where an import keeps the label PNG that it has replaced."""
    return home / STORE / f"{number:04}" / BEFORE / f"{image}.png"


def machine_file(home: Path, record: HumanRecord) -> Path:
    """The label PNG of the machine: the one that is there where nobody has changed it."""
    if record.machine:
        return stored_file(home, record.machine, record.image)
    return label_file(home, record.image)


def read_human(home: Path) -> dict[str, HumanRecord]:
    """What `human.jsonl` of a folder says, by image; nothing where there is none.

    Raises:
        RunError: it is damaged: whose labels are whose must not be guessed.
    """
    path = home / FILE
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"cannot read {path}: {error}") from error
    found: dict[str, HumanRecord] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = HumanRecord(**json.loads(line))
            sound = record.is_sound()
        except (ValueError, TypeError, RecursionError):
            sound = False
        if not sound or record.image in found:
            raise RunError(
                f"{path}:{number} is damaged or was edited", hint="restore it: it says whose the labels are"
            )
        found[record.image] = record
    return found


def human_labels(home: Path) -> dict[str, HumanRecord]:
    """The records whose label PNG is still the one that they are about.

    Raises:
        RunError: as `read_human`.
    """
    return {name: record for name, record in read_human(home).items() if is_current(home, record)}


def is_current(home: Path, record: HumanRecord) -> bool:
    """Whether a label PNG is still the one that a human has answered for."""
    try:
        return fingerprint(label_file(home, record.image).read_bytes()) == record.label
    except OSError:
        return False


def human_bytes(records: Mapping[str, HumanRecord]) -> bytes:
    """What `human.jsonl` holds, in the order of names."""
    ordered = [record for _, record in sorted(records.items())]
    return b"".join(json.dumps(dataclasses.asdict(record)).encode() + b"\n" for record in ordered)
