"""Files are written beside and then renamed, so that a half file never carries the real name."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import tempfile
import threading
import time
from contextvars import ContextVar
from typing import IO, TYPE_CHECKING, Any

from clipseg_cli.errors import DiskFullError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    Tell = Callable[[Path, Path], None]

ANOTHER_FOLDER = "choose another folder with --out"

_BINARY = getattr(os, "O_BINARY", 0)  # of Windows
LEFT_OVER = 600.0
"""Seconds after which an unfinished file belongs to a process that is no more."""

_OWN_PART = re.compile(r"\..*\.[0-9a-f]{16}\.part", re.DOTALL)
"""What `replacing` calls a file until it is whole; other programs have `.part` files too."""

_unfinished: set[Path] = set()
_beginning = threading.Lock()
"""Held while a file is begun and noted, so that none is begun unnoticed when the process ends at once."""

_told: ContextVar[Tell | None] = ContextVar("_told", default=None)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; it takes the name when the block ends well, else it is removed.

    Raises:
        OutputError: the folder cannot be made or written, or the disk is full.
    """
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _beginning:
            temporary = path.parent / f".{path.name[:40]}.{secrets.token_hex(8)}.part"
            # Not tempfile's, which makes files private: this one gets the permissions of any new file.
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
            _unfinished.add(temporary)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
            if tell := _told.get():
                with telling(None):
                    tell(path, temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            _unfinished.discard(temporary)


@contextlib.contextmanager
def telling(tell: Tell | None) -> Iterator[None]:
    """Have each file that this thread writes meanwhile told of just before it takes its name.

    Args:
        tell: (path, the whole file that is about to take that name); files that it writes are not told of.
    """
    token = _told.set(tell)
    try:
        yield
    finally:
        _told.reset(token)


def discard_unfinished() -> None:
    """Remove what other threads are writing, and let them begin nothing more: for a process that ends at once."""
    # Not for ever, since a signal may come while this very thread holds it.
    _beginning.acquire(timeout=1)
    for temporary in list(_unfinished):
        temporary.unlink(missing_ok=True)


def open_input(path: Path) -> IO[bytes]:
    """Open a file, or a pipe such as <(curl ...); a pipe without a writer is empty and does not wait for one."""
    if not path.is_fifo():
        return path.open("rb")
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    os.set_blocking(file.fileno(), True)
    return file


def write_bytes(path: Path, data: bytes) -> Path:
    """Write `data` to `path` whole or not at all."""
    with replacing(path) as file:
        file.write(data)
    return path


def write_json(path: Path, data: Any) -> Path:
    """Write `data` as indented JSON, keeping emoji and Chinese readable."""
    return write_bytes(path, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


def settle() -> None:
    """Have the system bring to the disk what was written so far, so that a power cut does not take it back.

    Once before a run is said to be done: for each file by itself it would take longer than labelling.
    """
    if hasattr(os, "sync"):  # not on Windows
        os.sync()


def sweep_leftovers(folders: Iterable[Path], older_than: float = LEFT_OVER) -> None:
    """Remove what killed processes left unfinished in some folders, and nothing else.

    Args:
        folders: looked at without those below them.
        older_than: seconds; younger files may still be written by others.
    """
    now = time.time()
    for folder in folders:
        for leftover in folder.glob(".*.part"):
            with contextlib.suppress(OSError):
                if _OWN_PART.fullmatch(leftover.name) and now - leftover.stat().st_mtime >= older_than:
                    leftover.unlink()


def check_writable(folder: Path) -> None:
    """Prove that files can be made in a folder, or that it can be made, before the long work starts.

    Nothing is left behind: a folder that does not exist yet is not made.

    Raises:
        OutputError: it cannot, or something that is no folder is in the way.
    """
    with output_errors(folder):
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not nearest.is_dir():
            raise OutputError(f"{nearest} is a file, not a folder", hint=ANOTHER_FOLDER)
        with tempfile.TemporaryFile(dir=nearest):
            pass


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about an output into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"no space left on the disk while writing {path}",
                hint="finished files are kept; free some space or choose another --out",
            ) from error
        raise OutputError(f"cannot write {path}: {error.strerror or error}", hint=ANOTHER_FOLDER) from error
