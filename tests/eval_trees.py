"""A small VOC tree whose labels are worth scoring, and mIoU counted without the package.

A test file imports the fixtures that it uses; their names are `voc` and `evaluate`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("2007_000033", "2007_000042", "2007_000061", "2007_000123", "2007_000129")
SIZES = ((40, 56), (56, 40), (48, 48), (33, 70), (64, 64))  # (H, W)


def make_scored_voc(root: Path, *, classes: int = 21) -> Path:
    """VOC 2012 with five smooth pictures of different sizes in `val`, labelled in blocks, some to ignore."""
    for seed, (name, (height, width)) in enumerate(zip(NAMES, SIZES, strict=True)):
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        image = root / "JPEGImages" / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(image, quality=95)
        blocks = rng.choice([*range(classes), 255, 255], (4, 5)).astype(np.uint8)
        label = Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)
        save_ids(root / "SegmentationClass" / f"{name}.png", np.asarray(label))
    write_split(root, "val", NAMES)
    write_split(root, "train", NAMES[:2])
    return root


def write_split(root: Path, split: str, names: Any) -> Path:
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), "utf-8")
    return path


def save_ids(path: Path, ids: np.ndarray) -> Path:
    """Class ids [H, W] as a palette PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
    image.save(path)
    return path


def read_ids(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def count_ious(pairs: Any, classes: int) -> list[float | None]:
    """IoU of each class over pairs (prediction, truth), each [H, W], by sets of pixels; 255 is ignored."""
    inter, union = np.zeros(classes, int), np.zeros(classes, int)
    for prediction, truth in pairs:
        scored = truth != 255
        for c in range(classes):
            found, there = (prediction == c) & scored, (truth == c) & scored
            inter[c] += (found & there).sum()
            union[c] += (found | there).sum()
    return [i / u if u else None for i, u in zip(inter.tolist(), union.tolist(), strict=True)]


def mean_iou(ious: list[float | None]) -> float:
    return float(np.mean([value for value in ious if value is not None]))


def results_below(folder: Path) -> dict[str, Any]:
    """The only `results.json` below a folder."""
    (path,) = folder.rglob("results.json")
    return json.loads(path.read_text("utf-8"))


@pytest.fixture(name="voc")
def scored_voc(tmp_path):
    """The tree of `make_scored_voc`."""
    return make_scored_voc(tmp_path / "VOC2012")


@pytest.fixture(name="evaluate")
def evaluate_command(cli, tiny_clip, tmp_path, monkeypatch):
    """Run `clipseg eval` with the tiny model and one template, in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    fixed = (*tiny_clip.options, "--templates", "single", "--out", tmp_path / "out")
    return lambda *args: cli("eval", *args, *fixed)
