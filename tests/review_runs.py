"""Folders of label maps to look through, made without any model."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from annotated import VERSIONS
from PIL import Image

from clipseg_cli.outputs import Outputs, write_run_info
from clipseg_cli.types import ClassList, DecodedImage, ImageSource, RunInfo, Segmentation

NAMES = ("background", "cat", "dog", "tree")
OPTIONS = {"classes": "cat,dog,tree", "model": "emoji", "method": "vanilla", "formats": "labels,confidence"}


def class_list(names=NAMES, background=0) -> ClassList:
    return ClassList(tuple(names), tuple((name,) for name in names), background)


def blocks(seed: int, classes: int = 4, height: int = 48, width: int = 64) -> np.ndarray:
    """A label map of large squares, some of which touch."""
    small = np.random.default_rng(seed).integers(0, classes, (height // 8, width // 8))
    return np.kron(small, np.ones((8, 8), int)).astype(np.uint8)


def confidences(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth enough that regions differ; surer with every seed."""
    grid = np.random.default_rng(seed + 99).random((height // 8, width // 8), np.float32)
    return np.kron(grid, np.ones((8, 8), np.float32)) * 0.5 + 0.05 * min(seed, 10)


def make_run(
    root: Path,
    maps: dict[str, np.ndarray],
    *,
    scores: dict[str, np.ndarray] | None = None,
    classes: ClassList | None = None,
    images: bool = True,
    options: dict | None = None,
) -> tuple[Path, Path]:
    """What `clipseg segment --formats labels,confidence` leaves, and the images.

    Args:
        root: where `run` and `images` are made.
        maps: name of an image, without suffix -> labels.
        scores: the same -> confidences; those of `confidences` where left out; {} for none.
        classes: what the ids mean.
        images: whether images are made.
        options: what `classes.json` remembers of the command.
    """
    run, photos, classes = root / "run", root / "images", classes or class_list()
    info = RunInfo(classes, OPTIONS if options is None else options, {"name": "emoji"}, VERSIONS)
    known = scores != {}
    outputs = Outputs(("labels", "confidence") if known else ("labels",), info, run, {})
    outputs.begin()
    for seed, (name, labels) in enumerate(maps.items()):
        height, width = labels.shape
        path = photos / f"{name}.png"
        if images:
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
            Image.fromarray(pixels).resize((width, height)).save(path)
        own = (scores or {}).get(name)
        sure = confidences(seed, height, width) if own is None else own
        source = ImageSource(path, PurePosixPath(name))
        image = DecodedImage(source, np.zeros((0, 0, 3), np.uint8))
        outputs.write(Segmentation(labels, sure.astype(np.float32), classes, image), run / name)
    outputs.end()
    write_run_info(info, run)
    return run, photos


class Page(HTMLParser):
    """A page as a parser sees it: its tags with their attributes, and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self._open: str | None = None
        self._in: str | None = None
        self.feed(text)
        self.close()
        self.data = json.loads(self.blocks["data"])
        self.payloads = [json.loads(self.blocks[f"p{i}"]) for i in range(len(self.data["images"]))]

    def handle_starttag(self, tag, attrs):
        own = dict(attrs)
        self.tags.append((tag, own))
        if tag == "script":
            self._open = own.get("id", "script")
        self._in = own.get("id") or tag

    def handle_endtag(self, tag):
        self._open = self._in = None

    def handle_data(self, data):
        if self._open is not None:
            self.blocks[self._open] = self.blocks.get(self._open, "") + data
        elif self._in is not None:
            self.texts[self._in] = self.texts.get(self._in, "") + data


def unpacked(text: str, shape: tuple[int, int]) -> np.ndarray:
    """The runs of a payload, read number by number."""
    import base64

    numbers, value, shift = [], 0, 0
    for byte in base64.b64decode(text):
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(value)
            value = shift = 0
    return np.repeat(numbers[::2], numbers[1::2]).reshape(shape)


MAPS = {name: blocks(seed) for seed, name in enumerate(("one", "sub folder/zwei 猫", "three", "four"))}
FILES = ("review.csv", "review_regions.csv", "review.json", "review.html")


@pytest.fixture(name="run")
def run_of_maps(tmp_path):
    """A folder of four label maps with their confidences."""
    return make_run(tmp_path, MAPS)


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def listed(folder):
    return json.loads((folder / "review.json").read_text("utf-8"))


def page_of(folder):
    return Page((folder / "review.html").read_text("utf-8"))
