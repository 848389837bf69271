"""Files of ours carry a mark, so that nothing is replaced that somebody else has made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.errors import OutputError
from clipseg_cli.utils.files import ANOTHER_FOLDER, output_errors, write_bytes

if TYPE_CHECKING:
    from pathlib import Path

MARK = "clipseg"
_HEAD = 4096  # bytes, in which the mark stands


def is_own(path: Path, mark: str = MARK) -> bool:
    """Whether a file is one that this tool wrote, and may write again; an empty one belongs to nobody."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return not head or mark.encode() in head


def refuse_strangers(path: Path, mark: str = MARK) -> None:
    """Prove that nothing would be lost by writing to a path.

    Args:
        path: of the file.
        mark: that one of ours carries.

    Raises:
        OutputError: somebody else's file or folder lies there, or it cannot be read.
    """
    with output_errors(path):
        if path.is_dir():
            raise OutputError(f"{path} is a folder, where a file would be written", hint=ANOTHER_FOLDER)
        if path.is_file() and not is_own(path, mark):
            raise OutputError(
                f"{path} was not made by clipseg and would be written over",
                hint=f"move it away, or {ANOTHER_FOLDER}",
            )


def write_own(path: Path, data: bytes) -> Path:
    """Write a file that carries the mark, whole or not at all, unless somebody else's lies there.

    Raises:
        OutputError: it cannot be written, or would replace a file of somebody else.
    """
    refuse_strangers(path)
    return write_bytes(path, data)
