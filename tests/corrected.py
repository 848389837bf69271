"""Folders of labels, and files of corrections for them, for tests of `clipseg import`."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pytest
from annotated import NAMES, result_of, samples, write
from PIL import Image

from clipseg_cli.outputs import write_run_info
from clipseg_cli.types import ClassList, RunInfo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from clipseg_cli.types import Segmentation

VERSIONS = {"clipseg": "0.0"}


def labelled(folder: Path, results: Sequence[Segmentation] | None = None) -> Path:
    """A folder as `clipseg segment` makes it, of the awkward samples or of these results."""
    results = samples() if results is None else results
    write("labels", results, folder)
    write_run_info(RunInfo(results[0].classes, {}, {"name": "emoji"}, VERSIONS), folder)
    return folder


def corrections(results: Sequence[Segmentation] | None = None, seed: int = 1) -> list[Segmentation]:
    """Other maps of the same images: blocks of every class, some of them in holes of others; never empty."""
    rng = np.random.default_rng(seed)
    return [changed(result, rng) for result in (samples() if results is None else results)]


def changed(result: Segmentation, rng: np.random.Generator) -> Segmentation:
    """Another map of the same image, which has some class beside the background, and no ignored pixel."""
    height, width = result.labels.shape
    many = len(result.classes)
    labels = (
        rng.integers(0, many, (-(-height // 4), -(-width // 3))).repeat(4, 0).repeat(3, 1)[:height, :width]
    )
    labels = np.where(rng.random((height, width)) < 0.1, rng.integers(0, many, (height, width)), labels)
    labels[0, 0] = (int(result.labels[0, 0]) + 1) % many or 1  # another one, and never the background
    if labels[0, 0] == result.labels[0, 0]:
        labels[0, 0] = 2
    source = result.image.source
    name = source.path.relative_to("/images").as_posix()
    return result_of(labels, name, names=result.classes.names, background=result.classes.background)


def maps(folder: Path) -> dict[str, np.ndarray]:
    """Image -> label map, as they lie in a folder."""
    found = {}
    for path in sorted(folder.rglob("*.png")):
        inside = path.relative_to(folder)
        if not any(part.startswith(".") for part in inside.parts):
            with Image.open(path) as image:
                found[str(inside.with_name(inside.name.removesuffix(".png")))] = np.asarray(image)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def by_name(results: Sequence[Segmentation]) -> dict[str, np.ndarray]:
    """Image -> the map it should have."""
    return {str(PurePosixPath(r.image.source.relative)): r.labels for r in results}


def closed_set(labels: np.ndarray, name: str = "x.jpg") -> Segmentation:
    """A result of classes without a background."""
    return result_of(labels, name, names=NAMES, background=None)


def class_list(names: Sequence[str] = NAMES, background: int | None = 0) -> ClassList:
    """Classes with one word each."""
    return ClassList(tuple(names), tuple((name,) for name in names), background)


@pytest.fixture(name="run")
def labelled_run(tmp_path) -> Path:
    return labelled(tmp_path / "run")


@pytest.fixture(name="good")
def good_corrections(tmp_path) -> Path:
    """Corrections of all five images."""
    return write("coco", corrections(), tmp_path / "good")[0]
