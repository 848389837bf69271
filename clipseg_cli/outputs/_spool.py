"""One file about all images of a folder, however many: its parts wait on the disk until the end, not in memory."""

from __future__ import annotations

import json
import tempfile
import threading
import weakref
from array import array
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.errors import OutputError
from clipseg_cli.outputs._own import MARK, refuse_strangers
from clipseg_cli.outputs._run import json_safe
from clipseg_cli.utils.files import ANOTHER_FOLDER, output_errors, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from clipseg_cli.types import Segmentation

    Entry = tuple[str, bytes]


class Spool:
    """Bytes by name in a temporary file that has no name, so that nothing is left of it whatever happens.

    Args:
        path: beside which it lies; in memory are only names and places, some hundred bytes for each.
    """

    def __init__(self, path: Path) -> None:
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  (closed with this object)
        self._path, self._file, self._end = path, file, 0
        self._places: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self.close = weakref.finalize(self, file.close)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, name: str, data: bytes) -> None:
        """Keep an entry; it takes the place of an earlier one of that name.

        Raises:
            OutputError: the disk is full.
        """
        with self._lock, output_errors(self._path):
            self._file.seek(self._end)
            self._file.write(data)
            self._places[name] = self._end, len(data)
            self._end += len(data)

    def __iter__(self) -> Iterator[Entry]:
        """All entries in the order of their names."""
        for name in sorted(self._places):
            start, length = self._places[name]
            self._file.seek(start)
            yield name, self._file.read(length)


class SortedSpool:
    """Pieces of bytes in a temporary file that has no name, read again in the order of their keys.

    Args:
        path: beside which it lies; in memory are 28 bytes for each piece.
    """

    def __init__(self, path: Path) -> None:
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  (closed with this object)
        self._path, self._file, self._end = path, file, 0
        self._keys, self._weights = array("d"), array("d")
        self._starts, self._lengths = array("q"), array("i")
        self.close = weakref.finalize(self, file.close)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, data: bytes, key: float, weight: float = 0.0) -> None:
        """Keep a piece.

        Args:
            data: of it.
            key: small ones come first; NaN comes last.
            weight: of equal keys, large ones come first; of equal weights, those that were added earlier.

        Raises:
            OutputError: the disk is full.
        """
        with output_errors(self._path):
            self._file.write(data)
        self._keys.append(key)
        self._weights.append(weight)
        self._starts.append(self._end)
        self._lengths.append(len(data))
        self._end += len(data)

    def __iter__(self) -> Iterator[bytes]:
        """All pieces in order."""
        keys = np.nan_to_num(np.array(self._keys), nan=np.inf, posinf=np.inf)
        for i in np.lexsort((-np.array(self._weights), keys)).tolist():
            self._file.seek(self._starts[i])
            yield self._file.read(self._lengths[i])


class Collected:
    """A writer of one file about all images, in the order of their names.

    Entries of images of earlier runs in the same folder are taken over. They are read piece by piece, once, at the
    beginning, so that a file that cannot be read again is refused before anything is done.

    Args:
        path: of the file.
        entry: (result, stem) -> what the file needs to know of one image.
        read: file -> entries of the images that it is about.
        join: (entries, file) -> writes it; the entries may be gone through several times.
        mark: in its first bytes, by which a file is known to be ours.
        said: called behind the last result, to say what could not be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        entry: Callable[[Segmentation, Path], Entry],
        read: Callable[[Path], Iterator[Entry]],
        join: Callable[[Spool, IO[bytes]], None],
        mark: str = MARK,
        said: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self._mark = path, mark
        self._entry, self._read, self._join, self._said = entry, read, join, said
        self._spool: Spool | None = None
        self._added = False

    def begin(self) -> None:
        """Take over what earlier runs wrote.

        Raises:
            OutputError: another file of that name lies there, or one that is damaged.
        """
        refuse_strangers(self.path, self._mark)
        self._spool = Spool(self.path)
        if not self.path.is_file() or not self.path.stat().st_size:
            return
        try:
            for name, data in self._read(self.path):
                self._spool.add(name, data)
        except OutputError:
            raise
        except Exception as error:  # of a file that was edited or cut, parsers raise nearly anything
            self._spool.close()
            raise OutputError(
                f"{self.path} was edited or damaged, so that its images would be lost: {error}",
                hint=f"move it away, or {ANOTHER_FOLDER}",
            ) from error

    def write(self, result: Segmentation, stem: Path) -> Sequence[Path]:
        """Note one image; its file comes at the end.

        Raises:
            OutputError: the disk is full.
        """
        assert self._spool is not None, "begin() comes first"
        self._spool.add(*self._entry(result, stem))
        self._added = True
        return ()

    def end(self) -> Sequence[Path]:
        """Write the file, if there is anything new in it.

        Raises:
            OutputError: it cannot be written.
        """
        assert self._spool is not None, "begin() comes first"
        try:
            if not self._added:
                return ()
            with replacing(self.path) as file:
                self._join(self._spool, file)
        finally:
            self._spool.close()
        self._said()
        return (self.path,)


def to_json(value: Any) -> bytes:
    """One line of JSON in UTF-8, whatever the texts in it hold."""
    try:
        return _compact(value)
    except (TypeError, ValueError):  # paths, NaN, lone surrogates; rare, and looking for them takes long
        return _compact(json_safe(value))


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def write_lines(file: IO[bytes], head: bytes, lines: Iterator[bytes], tail: bytes) -> None:
    """A list in JSON with one entry on each line."""
    file.write(head)
    for i, line in enumerate(lines):
        file.write((b",\n" if i else b"\n") + line)
    file.write(b"\n" + tail)


def read_lines(file: IO[bytes], name: str = "") -> Iterator[tuple[str, Any]]:
    """What `write_lines` has written: (name of the list, entry), line by line.

    Args:
        file: at its beginning.
        name: of a list that has none in the file.

    Raises:
        ValueError: a line is not what was written, or the end is missing.
    """
    section, line = "", b""
    for line in file:
        text = line.strip().rstrip(b",")
        if text.endswith(b"["):
            section = text[:-1].strip(b' {":').decode() or name
        elif text.startswith(b"]"):
            section = ""
        elif section and text:
            yield section, json.loads(text)
    if not line.rstrip().endswith((b"]}", b"]")):
        raise ValueError("its end is missing")
