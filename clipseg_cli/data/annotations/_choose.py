"""Of which format each file is: as the user says, or as the file shows beyond doubt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipseg_cli.data.annotations._files import open_archive
from clipseg_cli.data.annotations._json import read_json
from clipseg_cli.errors import AnnotationError, UsageError, did_you_mean
from clipseg_cli.utils.registry import Registry
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clipseg_cli.types import AnnotationFormat

FORMATS: Registry[AnnotationFormat] = Registry("clipseg_cli.data.annotations", "FORMAT", "annotation format")


class Chosen(NamedTuple):
    """A file, or a folder that is one thing, and its format.

    Attributes:
        path: of it.
        name: of the file of the format.
    """

    path: Path
    name: str


def shown_name(name: str) -> str:
    """A format as people write it: the name of its file with hyphens."""
    return name.replace("_", "-")


def choose(files: Sequence[str], format_: str = "") -> list[Chosen]:
    """All files to read, in the order in which they were named; folders are walked.

    Args:
        files: files and folders.
        format_: of all of them; empty where each shows it.

    Raises:
        UsageError: no such format.
        AnnotationError: no such file, or one that does not show its format.
    """
    name = format_.strip().replace("-", "_")
    if name and name not in FORMATS.names():
        known = [shown_name(known) for known in FORMATS.names()]
        raise UsageError(
            f"unknown {FORMATS.kind} '{format_}'", hint=did_you_mean(format_, known) or listed(known)
        )
    found = dict[Path, Chosen]()
    for text in files:
        path = Path(text)
        if not text.strip() or not path.exists():
            raise AnnotationError(f"{text or 'an empty name'}: no such file or folder")
        for one in _in_folder(path, name) if path.is_dir() else _one(path, name):
            found.setdefault(one.path.resolve(), one)
    return list(found.values())


def _one(path: Path, name: str) -> Iterator[Chosen]:
    yield Chosen(path, name or _recognised(path))


def _in_folder(folder: Path, name: str) -> Iterator[Chosen]:
    """A folder that is one thing, or the files in it whose format is sure."""
    for own in [name] if name else FORMATS.names():
        mark = FORMATS.get(own).mark
        if mark and (folder / mark).is_file():
            yield Chosen(folder, own)
            return
    known = {s for own in ([name] if name else FORMATS.names()) for s in FORMATS.get(own).suffixes}
    known -= {".txt"} if not name else set()  # lists and notes of any kind
    there = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in known
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    sure = [(path, name or _guess(path)) for path in there]
    chosen = [Chosen(p, own) for p, own in sure if own]
    if not chosen:
        raise AnnotationError(f"{folder} holds no file of annotations", hint="name the files themselves")
    yield from chosen


def _recognised(path: Path) -> str:
    found = _guess(path)
    if not found:
        if path.suffix.lower() == ".json":
            read_json(path)  # which says what is wrong with it, if it is no JSON
        if path.suffix.lower() == ".zip":
            with open_archive(path):  # and so does this
                pass
        known = ", ".join(shown_name(own) for own in FORMATS.names())
        raise AnnotationError(f"{path} does not show its format", hint=f"say it with --format: {known}")
    return found


def _guess(path: Path) -> str:
    return next((own for own in FORMATS.names() if FORMATS.get(own).recognise(path)), "")
