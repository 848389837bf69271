"""A folder of tars with label maps: `shards.jsonl` says of each what it holds and of what it was made.

Beside the tars, which are called as those of the images, lie `manifest.json` and `classes.json`. A line is added when
its tar is on the disk; in the end the lines stand in the order of the source.
"""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipseg_cli.errors import RunError
from clipseg_cli.outputs import write_run_info
from clipseg_cli.runs.manifest import FILE as MANIFEST
from clipseg_cli.runs.manifest import Manifest, read_manifest, refuse_changes, write_manifest
from clipseg_cli.runs.records import ImageRecord, fingerprint
from clipseg_cli.types import RunInfo
from clipseg_cli.utils.files import output_errors, settle, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from clipseg_cli.data.addresses import Version
    from clipseg_cli.runs.summary import Summary
    from clipseg_cli.types import ClassList

FILE = "shards.jsonl"
KIND = "pseudolabel-tars"


@dataclass(frozen=True)
class TarRecord:
    """What became of one tar of images.

    Attributes:
        tar: its name below the folder.
        source: bytes of the tar of images.
        version: mark of its content, as in `data.addresses.Version`; "" in records of older versions, and where there
            is none.
        label: fingerprint of the tar of label maps.
        images: what became of each image, in the order of the tar.
    """

    tar: str
    source: int
    label: str
    images: tuple[ImageRecord, ...]
    version: str = ""

    def line(self) -> bytes:
        """One line of JSON."""
        images = [json.loads(record.line()) for record in self.images]
        return (json.dumps({**_fields(self), "images": images}) + "\n").encode()

    @classmethod
    def parse(cls, line: str) -> TarRecord | None:
        """The record on a line, or None for a line that is not whole."""
        try:
            data = json.loads(line)
            images = [ImageRecord.parse(json.dumps(image)) for image in data.pop("images")]
            record = cls(**data, images=tuple(image for image in images if image is not None))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        texts = all(isinstance(text, str) for text in (record.tar, record.label, record.version))
        return record if texts and type(record.source) is int and len(record.images) == len(images) else None


def _fields(record: TarRecord) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name != "images"}


def tar_bytes(files: Mapping[str, bytes]) -> bytes:
    """A tar whose bytes follow from its content alone, and not from when and by whom it was written."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def files_in_tar(path: Path) -> dict[str, bytes]:
    """Name -> content, of a tar of `tar_bytes`."""
    with tarfile.open(path) as archive:
        return {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }


def begin_tars(folder: Path, identity: Mapping[str, Any], classes: ClassList) -> None:
    """Start a folder of tars, or make sure that the one that is there was started in the same way.

    Raises:
        RunError: it was made with other options, or holds tars of somebody else.
        OutputError: a file cannot be written.
    """
    before = read_manifest(folder)
    if before is not None:
        refuse_changes(folder, before, identity)
        if before.complete:
            write_manifest(Manifest(before.identity), folder)
        return
    if any(folder.rglob("*.tar")):
        raise RunError(f"{folder} holds tars but no {MANIFEST}", hint="choose another folder with --name")
    options = {**identity["options"], "method": identity["method"]}
    write_run_info(RunInfo(classes, options, identity["model"], identity["versions"]), folder)
    write_manifest(Manifest(identity), folder)


def read_tars(folder: Path) -> dict[str, TarRecord]:
    """Name -> record of the tars that are still as they were written."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return {}
    found: dict[str, TarRecord] = {}
    for record in filter(None, map(TarRecord.parse, lines)):
        try:
            whole = fingerprint((folder / record.tar).read_bytes()) == record.label
        except OSError:
            whole = False
        if whole:
            found[record.tar] = record
    return found


def add_tar(
    folder: Path, name: str, source: Version, records: Sequence[ImageRecord], data: bytes
) -> TarRecord:
    """Write a tar of label maps, and then that it is there.

    Args:
        folder: where to.
        name: of the tar.
        source: the tar of images, as it was read.
        records: of the images.
        data: of the tar.

    Raises:
        OutputError: it cannot be written.
    """
    write_bytes(folder / name, data)
    record = TarRecord(name, source.size, fingerprint(data), tuple(records), source.mark)
    with output_errors(folder / FILE), (folder / FILE).open("ab") as file:
        if file.tell():
            file.write(b"\n")  # what a killed process left of a line must not be glued to this one
        file.write(record.line())
    return record


def finish_tars(
    folder: Path, identity: Mapping[str, Any], records: Iterable[TarRecord], summary: Summary
) -> None:
    """Write the records in the order of the source, and the complete manifest.

    Raises:
        OutputError: one of them cannot be written.
    """
    write_bytes(folder / FILE, b"".join(record.line() for record in records))
    settle()  # the manifest says that all is there
    result = {key: value for key, value in dataclasses.asdict(summary).items() if key != "folder"}
    write_manifest(Manifest(identity, result), folder)
