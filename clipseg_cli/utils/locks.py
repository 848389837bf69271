"""A file that says who works in a folder; the lock goes with the process, however that ends."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from clipseg_cli.utils.files import output_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock: there nothing keeps two runs apart
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Holder:
    """The process that wrote a lock file."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid}" + ("" if self.host == socket.gethostname() else f" on {self.host}")


class LockedError(Exception):
    """Somebody else holds the lock."""

    def __init__(self, path: Path, holder: Holder | None) -> None:
        super().__init__(f"{path} is held by {holder}")
        self.path, self.holder = path, holder


@contextmanager
def hold(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[Holder | None]:
    """Hold a lock file while the block runs; at the end it is removed, unless it is shared.

    Args:
        path: of the file; its folder must exist.
        shared: several may hold it together, but none beside one that does not share.
        wait: until it is free, instead of raising.

    Yields:
        Who left the file behind without a lock on it: a process that was killed. Usually None.

    Raises:
        LockedError: another process holds it.
        OutputError: the file cannot be written.
    """
    file = _acquire(path, shared=shared, wait=wait)
    try:
        left_by = None if shared else _read_holder(file)
        if not shared:
            file.seek(0)
            file.truncate()
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            file.flush()
        yield left_by
    finally:
        # Removed before it is released: `_acquire` looks whether it is still there. A shared one stays.
        if not shared:
            path.unlink(missing_ok=True)
        file.close()


def read_holder(path: Path) -> Holder | None:
    """Who wrote a lock file, or None."""
    try:
        with path.open("r+") as file:
            return _read_holder(file)
    except OSError:
        return None


def _acquire(path: Path, *, shared: bool, wait: bool) -> IO[str]:
    while True:
        with output_errors(path):
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
        if fcntl is None:
            return file
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read_holder(file)
            file.close()
            raise LockedError(path, holder) from error
        # The holder before us may have removed the file between our opening it and locking it.
        with suppress(OSError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        file.close()


def _read_holder(file: IO[str]) -> Holder | None:
    try:
        file.seek(0)
        data = json.loads(file.read())
        return Holder(int(data["pid"]), str(data["host"]))
    except (ValueError, LookupError, TypeError):
        return None
