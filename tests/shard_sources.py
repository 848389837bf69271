"""Images and tars of them for tests, and what is in tars that were written.

A test file imports the fixture that it uses; its name is `photos`.
"""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from run_folders import make_photos

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WORDS = ("--classes", "cat,dog")


@pytest.fixture(scope="module", name="photos")
def source_photos(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("sources") / "photos", 5)


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar with these files, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def labels_in_tar(path: Path) -> dict[str, bytes]:
    """Name -> content, in the order of the tar."""
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}
