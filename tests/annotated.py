"""Label maps as segmenting makes them, of every awkward kind, for tests of formats that tools for annotation read."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.outputs import Outputs
from clipseg_cli.types import ClassList, DecodedImage, ImageSource, RunInfo, Segmentation

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("background", "cat", "red car", "猫, \"A\" & <b>: 'c'#;")
NUMBER = {name: i for i, name in enumerate(NAMES)}
VERSIONS = {"clipseg": "0.0"}


def result_of(
    labels: np.ndarray, name: str = "x.jpg", *, names=NAMES, background=0, scores=None
) -> Segmentation:
    """A result of an image of that name below the folder of images."""
    labels = labels.astype(np.uint8 if len(names) <= 255 else np.uint16)
    if scores is None:
        scores = np.random.default_rng(labels.size).random(labels.shape, np.float32)
    path = PurePosixPath(name)
    source = ImageSource(Path("/images") / name, path.with_suffix(""))
    classes = ClassList(tuple(names), tuple((n,) for n in names), background)
    pixels = np.zeros((*labels.shape, 3), np.uint8)
    return Segmentation(labels, scores.astype(np.float32), classes, DecodedImage(source, pixels))


def shapes(height: int = 60, width: int = 80) -> np.ndarray:
    """Rings, holes in holes, pixels that touch at corners, specks, and things at the edges, of 4 classes."""
    labels = np.zeros((height, width), np.uint8)
    labels[5:40, 5:50] = 1
    labels[10:35, 10:45] = 2
    labels[15:30, 15:40] = 0
    labels[20:25, 20:30] = 1
    labels[40, 50] = 1  # touches the first at a corner
    labels[50:, 60:] = 3
    labels[45:50, 0] = 3
    labels[0, 70:] = 2
    labels[55, 3:9:2] = 2
    labels[np.arange(42, 50), np.arange(20, 28)] = 3  # a thin diagonal
    return labels


def samples() -> list[Segmentation]:
    """Results of images in sub-folders, with spaces, letters of other scripts, one pixel, and nothing in them."""
    noise = np.random.default_rng(0).integers(0, 4, (19, 23))
    return [
        result_of(shapes(), "one.jpg"),
        result_of(noise, "sub folder/zwei & 猫.png"),
        result_of(np.zeros((8, 5)), "sub/empty.v2.jpg"),
        result_of(np.ones((1, 1)), "pixel.jpg"),
        result_of(np.full((4, 6), 3), "sub/full.webp"),
    ]


def write(
    format_: str, results: Sequence[Segmentation], out: Path, names: Sequence[str] | None = None, **options
) -> list[Path]:
    """All files that a format makes of some results, under the names of their images or others."""
    run = RunInfo(results[0].classes, {}, {"name": "emoji"}, VERSIONS)
    outputs = Outputs((format_,), run, out, {format_: options})
    outputs.begin()
    written: list[Path] = []
    for number, result in enumerate(results):
        stem = out / (names[number] if names else result.image.source.relative)
        written += outputs.write(result, stem)[format_]
    return [*written, *outputs.end()[format_]]


def name_of(result: Segmentation) -> str:
    """The name of its image below the folder of images."""
    return str(result.image.source.path.relative_to("/images"))


def painted(parts, shape: tuple[int, int]) -> np.ndarray:
    """A map [H, W] from (number, mask) pairs that do not overlap."""
    labels = np.zeros(shape, int)
    for number, mask in parts:
        assert not labels[mask].any(), "two regions share a pixel"
        labels[mask] = number
    return labels


def filled(rings, shape: tuple[int, int]) -> np.ndarray:
    """A mask from rings of corners by the even-odd rule on the centres of pixels, without any library."""
    mask = np.zeros(shape, bool)
    columns = np.arange(shape[1]) + 0.5
    for ring in rings:
        ring = np.asarray(ring, float)
        for start, end in zip(ring.tolist(), np.roll(ring, -1, 0).tolist(), strict=True):
            (x, top), (there, bottom) = sorted((start, end), key=lambda corner: corner[1])
            for row in range(max(0, math.ceil(top - 0.5)), min(shape[0], math.ceil(bottom - 0.5))):
                # What goes up or down flips all that is right of it.
                mask[row] ^= columns > x + (there - x) * (row + 0.5 - top) / (bottom - top)
    return mask


def unbrushed(data) -> np.ndarray:
    """Label Studio's run lengths, read bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def read(count):
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    size, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < size:
        same, length = read(1), read(lengths[read(2)]) + 1
        values += [read(word)] * length if same else [read(word) for _ in range(length)]
    assert len(bits) - at < 8
    return np.array(values)


def placed(mask: np.ndarray, left: int, top: int, shape) -> np.ndarray:
    """A mask at its place in an image."""
    whole = np.zeros(shape, bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return whole
