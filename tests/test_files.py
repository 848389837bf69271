"""Files appear whole or not at all, and failures are sentences."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clipseg_cli.errors import DiskFullError, OutputError
from clipseg_cli.utils.files import check_writable, replacing, write_bytes, write_json


def test_a_file_appears_whole_with_ordinary_permissions(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a" / "b.bin", b"123")
    assert path.read_bytes() == b"123"
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "x", b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half of the new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="no space left"), replacing(tmp_path / "x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_json_keeps_emoji_and_chinese(tmp_path: Path) -> None:
    assert "狗🤡" in write_json(tmp_path / "x.json", {"name": "狗🤡"}).read_text(encoding="utf-8")


def test_checking_a_folder_makes_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deep")
    check_writable(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_way_of_the_folder(tmp_path: Path, below: str) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(OutputError, match="is a file, not a folder"):
        check_writable(blocked / below)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody can write")
def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(OutputError, match="cannot write"):
        check_writable(Path("/proc/clipseg"))


def test_importing_leaves_the_umask_alone() -> None:
    """Setting it, if only to read it, is seen by every other thread of the process."""
    code = "import os; os.umask = None; import clipseg_cli.utils.files"
    subprocess.run([sys.executable, "-c", code], check=True)
