"""Labels of a folder changed by human hand: all of them or none, whatever happens, and back again.

An import is prepared in `.human/NNNN.part`: `new/`, the label PNGs to be, `before/`, those that they replace, and
`human.jsonl` as it was and as it will be. When all is on the disk the folder loses its `.part`: from then on the import
holds, and until then nothing has been touched. What is in `new/` then takes its places; if that is cut off, whoever
opens the folder next with clipseg brings it to its end. `before/` stays, for `--undo` and to score the machine.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clipseg_cli.errors import RunError
from clipseg_cli.runs.folder import RUN_LOCK
from clipseg_cli.runs.human import (
    BEFORE,
    FILE,
    STORE,
    HumanRecord,
    human_bytes,
    label_file,
    read_human,
)
from clipseg_cli.runs.records import fingerprint
from clipseg_cli.utils.files import output_errors, settle, write_bytes, write_json
from clipseg_cli.utils.locks import LockedError, file_lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NEW, FACTS = "new", "import.json"
WAS, WILL, NONE = "human-before.jsonl", "human-after.jsonl", "no-human-before"
PART, UNDO = ".part", ".undo"


class Change:
    """An import in preparation.

    Args:
        home: folder of the labels, locked.

    Attributes:
        number: of the import, from 1.
        before: the records that were there.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.before = home, read_human(home)
        self.number = 1 + max(_numbers(home), default=0)
        self._done = home / STORE / f"{self.number:04}"
        self._path = self._done.with_name(self._done.name + PART)

    def replace(self, image: str, data: bytes) -> None:
        """Prepare another label PNG for an image.

        Raises:
            OutputError: it cannot be written.
        """
        path = label_file(self.home, image)
        with output_errors(path):
            old = path.read_bytes()
        write_bytes(self._path / BEFORE / f"{image}.png", old)
        write_bytes(self._path / NEW / f"{image}.png", data)

    def commit(self, records: Mapping[str, HumanRecord], facts: Mapping[str, Any]) -> None:
        """Let the import hold: records, beside those that were there, and labels.

        Args:
            records: of the images of this import.
            facts: about it, for people.

        Raises:
            OutputError: it cannot be written; where this is before the import holds, nothing has changed.
        """
        there = self.home / FILE
        with output_errors(there):
            if there.is_file():
                write_bytes(self._path / WAS, there.read_bytes())
            else:
                write_bytes(self._path / NONE, b"")
        write_json(self._path / FACTS, dict(facts))
        write_bytes(self._path / WILL, human_bytes({**self.before, **records}))
        settle()
        with output_errors(self._done):
            self._path.rename(self._done)
        _apply(self.home, self._done)
        settle()

    def discard(self) -> None:
        """Leave nothing of it."""
        shutil.rmtree(self._path, ignore_errors=True)
        _tidy(self.home)


@contextmanager
def changing(home: Path) -> Iterator[Change]:
    """Lock a folder of labels for an import; what is not committed leaves nothing behind.

    Raises:
        RunError: another process works in it, or `human.jsonl` is damaged.
        OutputError: it cannot be written.
    """
    with _locked(home):
        _recover(home)
        change = Change(home)
        try:
            yield change
        finally:
            change.discard()


def complete_changes(home: Path, *, locked: bool = False) -> None:
    """Bring an import to its end that was cut off while labels took their places; nothing where there is none.

    Args:
        home: folder of the labels.
        locked: this process holds it already.

    Raises:
        RunError: another process works in it.
        OutputError: it cannot be written.
    """
    if not (home / STORE).is_dir() or not _is_pending(home):
        return
    if locked:
        _recover(home)
        return
    with _locked(home):
        _recover(home)


def undo_last(home: Path) -> tuple[dict[str, Any], list[str]]:
    """Take the last import back: the bytes that were there before it.

    Returns:
        What was noted of the import, and the images whose label PNGs are as before.

    Raises:
        RunError: there is none, or a label was changed since, so that this would be lost; another process works there.
    """
    with _locked(home):
        _recover(home)
        number = max(_numbers(home), default=0)
        if not number:
            raise RunError(f"{home} has no import to take back")
        folder = home / STORE / f"{number:04}"
        images = [_image(path, folder / BEFORE) for path in _pngs(folder / BEFORE)]
        records = read_human(home)
        for image in images:
            record, path = records.get(image), label_file(home, image)
            if record is None or not path.is_file() or fingerprint(path.read_bytes()) != record.label:
                raise RunError(
                    f"{path} was changed since it was imported, which would be lost",
                    hint=f"its map before the import is {folder / BEFORE / image}.png",
                )
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        going = folder.with_name(folder.name + UNDO)
        with output_errors(going):
            folder.rename(going)
        _take_back(home, going)
        settle()
    return facts, images


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    try:
        with file_lock(home / RUN_LOCK):
            yield
    except LockedError as error:
        raise RunError(
            f"{home} is in use by {error.holder or 'another process'}", hint="wait for it to end"
        ) from error


def _is_pending(home: Path) -> bool:
    return any((home / STORE).glob(f"*{UNDO}")) or any((home / STORE).glob(f"[0-9]*[0-9]/{WILL}"))


def _recover(home: Path) -> None:
    """Finish what was decided, and drop what was not."""
    for going in sorted((home / STORE).glob(f"*{UNDO}")):
        _take_back(home, going)
    for number in _numbers(home):
        if (home / STORE / f"{number:04}" / WILL).is_file():
            _apply(home, home / STORE / f"{number:04}")
    for part in (home / STORE).glob(f"*{PART}"):
        shutil.rmtree(part, ignore_errors=True)


def _apply(home: Path, folder: Path) -> None:
    """Give new labels their places; may be cut off and done again."""
    with output_errors(folder):
        for path in _pngs(folder / NEW):
            write_bytes(label_file(home, _image(path, folder / NEW)), path.read_bytes())
            path.unlink()
        if (folder / WILL).is_file():
            write_bytes(home / FILE, (folder / WILL).read_bytes())
            (folder / WILL).unlink()  # the last that is missing of an import
        shutil.rmtree(folder / NEW, ignore_errors=True)


def _take_back(home: Path, folder: Path) -> None:
    """Give old labels their places; may be cut off and done again."""
    with output_errors(folder):
        for path in _pngs(folder / BEFORE):
            write_bytes(label_file(home, _image(path, folder / BEFORE)), path.read_bytes())
            path.unlink()
        if (folder / WAS).is_file():
            write_bytes(home / FILE, (folder / WAS).read_bytes())
            (folder / WAS).unlink()
        elif (folder / NONE).is_file():
            (home / FILE).unlink(missing_ok=True)
            (folder / NONE).unlink()
        shutil.rmtree(folder)
    _tidy(home)


def _tidy(home: Path) -> None:
    store = home / STORE
    if store.is_dir() and not any(store.iterdir()):
        store.rmdir()


def _numbers(home: Path) -> list[int]:
    """Of the imports that hold, ascending."""
    names = [path.name for path in (home / STORE).glob("*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal())


def _pngs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def _image(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix().removesuffix(".png")
