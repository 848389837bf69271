"""Pseudo-label runs for tests: small data, the command with the tiny model, and what is in a folder.

A test file imports the fixtures that it uses; their names are `run`, `folder`, `voc` and `whole`.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dataset_trees import make_voc, save_image
from PIL import Image

from clipseg_cli.commands import pseudolabel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Outcome, TinyClip

NAMES = tuple(f"2012_{number:06}" for number in range(7))
SMALL = ("--templates", "single", "--batch-size", "4", "--name", "run")
"""Groups of two pictures."""


def make_photos(root: Path, count: int = 7) -> Path:
    """A plain folder of pictures of several sizes, one of them in a folder below."""
    for i in range(count):
        name = f"{i:02}.png" if i != 2 else "trip/02.png"
        save_image(root / name, size=(12 + 2 * (i % 3), 16), seed=i)
    return root


def make_small_voc(root: Path, count: int = 7, **options: object) -> Path:
    """VOC with so many pictures in train; half of the pixels of the first are sheep (17), others have none."""
    make_voc(root, names={"train": NAMES[:count], "val": NAMES[:1]}, values=(0, 1, 20, 255), **options)
    return root


def runner(cli: Callable[..., Outcome], tiny: TinyClip, out: Path) -> Callable[..., Outcome]:
    """The command with the tiny model into `out/run`."""

    def run(dataset: Path, *args: object) -> Outcome:
        return cli("pseudolabel", dataset, *tiny.options, *SMALL, "--out", out, *args)

    return run


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder: its text, or a digest of a picture, so that a difference can be read."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): _told(path) for path in files}


def _told(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix in {".json", ".jsonl"}:
        return data.decode(errors="surrogateescape")
    return hashlib.sha256(data).hexdigest()


def times(folder: Path) -> dict[str, int]:
    """Every file below a folder with the time it was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def labels_in(folder: Path) -> dict[str, np.ndarray]:
    """Picture -> its label map in a run folder."""
    found = {}
    for path in sorted((folder / "labels").rglob("*.png")):
        with Image.open(path) as image:
            found[str(path.relative_to(folder / "labels").with_suffix(""))] = np.asarray(image)
    return found


@contextmanager
def stopped_after(monkeypatch, images):
    """Ctrl-C once so many label files are written."""
    write, calls = pseudolabel.write_bytes, []

    def count(path, data):
        calls.append(path)
        if len(calls) > images:
            raise KeyboardInterrupt
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(pseudolabel, "write_bytes", count)
        yield


@pytest.fixture(name="run")
def run_command(cli, tiny_clip, tmp_path) -> Callable[..., Outcome]:
    """`run(dataset, *options)` works in the folder of the fixture `folder`."""
    return runner(cli, tiny_clip, tmp_path / "out")


@pytest.fixture(name="folder")
def run_folder(tmp_path) -> Path:
    """Where the runs of a test go, unless they are given another name."""
    return tmp_path / "out" / "run"


@pytest.fixture(scope="module", name="_data")
def voc_data(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    return make_small_voc(tmp_path_factory.mktemp("data") / "voc"), {}


@pytest.fixture(name="voc")
def lasting_voc(_data):
    """The same for all tests of a file, since a run records where it lies; pictures are mended after each."""
    root, _ = _data
    good = {path: path.read_bytes() for path in (root / "JPEGImages").iterdir()}
    yield root
    for path, data in good.items():
        path.write_bytes(data)


@pytest.fixture(name="whole")
def whole_run(run, voc, _data, tmp_path) -> dict[str, bytes]:
    """What one run in one go makes of `voc`."""
    made = _data[1]
    if not made:
        assert run(voc, "--out", tmp_path / "whole").code == 0
        made.update(contents(tmp_path / "whole" / "run"))
        assert len(made) == len(NAMES) + 3
    return made


def correct_upper_half(path, value=3):
    """Another class in the upper half, saved as a label map; its ids."""
    with Image.open(path) as image:
        palette, values = image.getpalette(), np.asarray(image).copy()
    values[: len(values) // 2] = value
    corrected = Image.fromarray(values)
    corrected.putpalette(palette)
    corrected.save(path)
    return values
