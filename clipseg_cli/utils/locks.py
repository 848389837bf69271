"""A file that says who works in a folder; the lock goes with the process, however that ends."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipseg_cli.utils.files import output_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock: there nothing keeps two runs apart
    fcntl = None  # type: ignore[assignment]


_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag


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
def file_lock(
    path: Path, *, shared: bool = False, wait: bool = False, patience: float = 0.5
) -> Iterator[Holder | None]:
    """Hold a lock file while the block runs; at the end it is removed, if shared by the last who holds it.

    Args:
        path: of the file; its folder must exist.
        shared: several may hold it together, but none beside one that does not share.
        wait: until it is free, instead of raising.
        patience: seconds before it counts as held: whoever looks for stale ones holds them for a moment.

    Yields:
        Who left the file behind without a lock on it: a process that was killed. Usually None.

    Raises:
        LockedError: another process holds it.
        OutputError: the file cannot be written.
    """
    file = _acquire(path, shared=shared, wait=wait, patience=patience)
    try:
        left_by = _read_holder(file)
        me = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        with output_errors(path):
            os.ftruncate(file, 0)  # whoever is named there is gone
            os.lseek(file, 0, os.SEEK_SET)
            os.write(file, b"" if shared else me.encode())
        yield left_by
    finally:
        # Removed before it is released: `_acquire` looks whether it is still there.
        with suppress(OSError):
            if shared:
                _lock(file, exclusive=True, wait=False)
            if _is_at(file, path):
                path.unlink()
        os.close(file)


def holder_of(path: Path) -> Holder | None:
    """Who holds a lock file alone, or None where nobody does."""
    try:
        file = os.open(path, os.O_RDWR | _NO_LINK)
    except OSError:
        return None
    try:
        _lock(file, exclusive=False, wait=False)
    except OSError:
        return _read_holder(file)
    finally:
        os.close(file)
    return None


def remove_stale_locks(paths: Iterable[Path]) -> list[Holder]:
    """Remove the lock files that killed processes left behind, and say who these were."""
    gone = []
    for path in paths:
        if path.exists():
            with suppress(LockedError), file_lock(path, patience=0) as left_by:
                gone += [left_by] if left_by else []
    return gone


def _acquire(path: Path, *, shared: bool, wait: bool, patience: float) -> int:
    until = time.monotonic() + patience
    while True:
        with output_errors(path):
            # Not through a symbolic link: what it points to is not ours to empty.
            file = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        try:
            _lock(file, exclusive=not shared, wait=wait)
        except OSError as error:
            holder = _read_holder(file)
            os.close(file)
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            raise LockedError(path, holder) from error
        except BaseException:
            os.close(file)
            raise
        # The holder before us may have removed the file between our opening it and locking it.
        if _is_at(file, path):
            return file
        os.close(file)


def _lock(file: int, *, exclusive: bool, wait: bool) -> None:
    """Lock an open file.

    Raises:
        BlockingIOError: another process holds it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:  # a file system that knows no locks: as on Windows
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _read_holder(file: int) -> Holder | None:
    try:
        os.lseek(file, 0, os.SEEK_SET)
        data = json.loads(os.read(file, 4096))
        return Holder(int(data["pid"]), str(data["host"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
