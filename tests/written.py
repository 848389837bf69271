"""Results to write, and what is then in a folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from clipseg_cli.outputs import FORMATS, Outputs
from clipseg_cli.types import ClassList, DecodedImage, ImageSource, RunInfo, Segmentation

HOSTILE = [
    "../../x",
    "a/b",
    "c" * 5000,
    "🐱",
    "猫",
    "CON",
    "...hidden",
    "",
    "a\\b:c*?",
    "x\0y\n",
    "-rf",
    "\ud800",
]


def segment(
    shape=(30, 40), names=("background", "cat", "dog"), background=0, heat=True, seed=0
) -> Segmentation:
    rng = np.random.default_rng(seed)
    # Blocks on large ones: nobody's labels are noise of single pixels.
    coarse = rng.integers(0, len(names), np.minimum(shape, 64))
    rows, columns = (np.arange(n) * k // n for n, k in zip(shape, coarse.shape, strict=True))
    labels = coarse[np.ix_(rows, columns)].astype(np.uint8 if len(names) <= 255 else np.uint16)
    scores = rng.random(shape, np.float32)
    image = DecodedImage(
        ImageSource(None, PurePosixPath("x")), rng.integers(0, 255, (*shape, 3)).astype(np.uint8)
    )
    return Segmentation(
        labels,
        scores,
        ClassList(tuple(names), tuple((n,) for n in names), background),
        image,
        (lambda c: np.where(labels == c, scores, np.float32(0))) if heat else None,
    )


def write(name: str, result: Segmentation, stem: Path) -> list[Path]:
    """All files that a format makes of one result."""
    outputs = Outputs((name,), RunInfo(result.classes, {}, {}, {"clipseg": "0"}), stem.parent, {})
    outputs.begin()
    return [*outputs.write(result, stem)[name], *outputs.end()[name]]


def files_below(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if p.is_file()}


OF_ANY_IMAGE = [name for name in FORMATS.names() if name != "video"]
"""Films are of frames of a video: see test_video."""
