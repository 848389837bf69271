"""What a run folder remembers of finished images: one JSON line each, added when its group is on the disk.

While a run is going on every worker appends to a file of its own (`progress*.jsonl`); a line that a killed process left
unfinished is ignored, and its group is done again. When all is done, `images.jsonl` holds the lines in the order of the
list and the workers' files go.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clipseg_cli.utils.files import output_errors, write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
    from pathlib import Path

FINAL = "images.jsonl"
WORKERS = "progress*.jsonl"
REMOVED = "removed.jsonl"
"""Of images that have left the data set since, so that their labels count again should they come back."""


def fingerprint(data: bytes) -> str:
    """Fingerprint of a label file, to see later whether it is still the same."""
    return f"{zlib.crc32(data):08x}-{len(data)}"


def file_fingerprint(path: Path) -> str:
    """Fingerprint of an image file, read in parts; empty where it cannot be read, or is a pipe."""
    crc = size = 0
    try:
        if path.is_fifo():  # opening it would wait for somebody who writes
            return ""
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                crc, size = zlib.crc32(part, crc), size + len(part)
    except OSError:
        return ""
    return f"{crc:08x}-{size}"


@dataclass(frozen=True)
class ImageRecord:
    """What became of one image.

    Attributes:
        image: its name in the data set.
        group: the unit of work it belonged to.
        height, width: of its label map; 0 if it failed.
        pixels: class id -> pixels.
        ignored: pixels with the ignore value.
        scored: class id -> those of its pixels that the model labelled.
        confidence: class id -> sum of their scores.
        kept: pixels whose ground truth was kept.
        label: fingerprint of its label file as it was written; empty in runs of older versions.
        source: bytes of the image that was labelled; 0 in runs of older versions.
        content: fingerprint of its file; empty in runs of older versions.
        error: why it failed; empty if it did not.
    """

    image: str
    group: int
    height: int = 0
    width: int = 0
    pixels: Mapping[int, int] = field(default_factory=dict)
    ignored: int = 0
    scored: Mapping[int, int] = field(default_factory=dict)
    confidence: Mapping[int, float] = field(default_factory=dict)
    kept: int = 0
    label: str = ""
    source: int = 0
    content: str = ""
    error: str = ""

    def line(self) -> bytes:
        """One line of JSON in UTF-8."""
        data = dataclasses.asdict(self)
        try:
            return (json.dumps(data, ensure_ascii=False) + "\n").encode()
        except (
            UnicodeEncodeError
        ):  # a file name with bytes that are no text: spelt out, it comes back as it is
            return (json.dumps(data) + "\n").encode()

    @classmethod
    def parse(cls, line: str) -> ImageRecord | None:
        """The record on a line, or None for a line that is not whole."""
        try:
            data = json.loads(line)
            for key in ("pixels", "scored", "confidence"):
                data[key] = {int(id_): value for id_, value in data[key].items()}
            record = cls(**data)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return record if record.is_sound() else None

    def is_sound(self) -> bool:
        """Whether every field has its type; a line may have been damaged or edited."""
        numbers = (self.group, self.height, self.width, self.ignored, self.kept, self.source)
        texts = (self.image, self.error, self.label, self.content)
        counts = (*self.pixels.values(), *self.scored.values())
        return (
            all(isinstance(text, str) and "\0" not in text for text in texts)
            and all(type(number) is int and number >= 0 for number in (*numbers, *counts))
            and all(isinstance(value, (int, float)) for value in self.confidence.values())
        )


def read_records(
    folder: Path, has_label: Callable[[ImageRecord], bool] = lambda record: True
) -> dict[str, ImageRecord]:
    """All records in a run folder, by image, of however many workers.

    Args:
        folder: of the run.
        has_label: whether the label file of a record is there, and is one; by default nobody looks.

    Returns:
        A success stands above a failure of an earlier try, and does not count without its label file.
    """
    found: dict[str, ImageRecord] = {}
    for path in (folder / FINAL, *sorted(folder.glob(WORKERS))):
        for record in _records(path):
            if not record.error and not has_label(record):
                continue
            if not record.error or record.image not in found:
                found[record.image] = record
    return found


def read_removed(folder: Path) -> dict[str, ImageRecord]:
    """The records of images that have left the data set, by name."""
    return {record.image: record for record in _records(folder / REMOVED)}


def write_removed(records: Mapping[str, ImageRecord], folder: Path) -> None:
    """Note which images have left the data set; no file where none has.

    Raises:
        OutputError: it cannot be written.
    """
    if records:
        write_bytes(folder / REMOVED, b"".join(record.line() for _, record in sorted(records.items())))
    else:
        (folder / REMOVED).unlink(missing_ok=True)


def forget_records(paths: Iterable[Path], images: Set[str]) -> None:
    """Strike out images that are about to be done again, so that nobody takes the run for complete meanwhile.

    Raises:
        OutputError: a file cannot be written.
    """
    for path in paths:
        records = list(_records(path))
        kept = [record for record in records if record.image not in images]
        if len(kept) < len(records):
            write_bytes(path, b"".join(record.line() for record in kept))


def _records(path: Path) -> Iterator[ImageRecord]:
    """The whole lines of a file, if it is there."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.split("\n"):  # not splitlines(): a name may hold what that takes for the end of a line
        record = ImageRecord.parse(line)
        if record is not None:
            yield record


class ProgressFile:
    """Where one worker notes what it has finished; to be closed.

    Args:
        folder: of the run.
        name: of the worker; empty for the only one.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self.path = progress_path(folder, name)
        with output_errors(self.path):
            self._file = self.path.open("a+b", buffering=0)
            # What a killed process left of a line must not be glued to the next one.
            if self._file.tell():
                self._file.write(b"\n")

    def add(self, records: Sequence[ImageRecord]) -> None:
        """Note the images of a group, whose label files are on the disk (or that failed).

        Raises:
            OutputError: it cannot be written.
        """
        data = b"".join(record.line() for record in records)
        with output_errors(self.path):
            while data:  # a nearly full disk takes a part
                data = data[self._file.write(data) :]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def progress_path(folder: Path, name: str = "") -> Path:
    """The file of a worker; of the only one if the name is empty."""
    return folder / f"progress{name and '-' + name}.jsonl"


def final_bytes(records: Iterable[ImageRecord]) -> bytes:
    """What `images.jsonl` holds in the end."""
    return b"".join(record.line() for record in records)


def write_final(records: Iterable[ImageRecord], folder: Path) -> None:
    """Write `images.jsonl` and remove the workers' files."""
    write_bytes(folder / FINAL, final_bytes(records))
    for path in folder.glob(WORKERS):
        path.unlink(missing_ok=True)
