"""Score label images of test scenes: `python -m recipes.emoji.evaluate --pred pred --scenes scenes`.

`--pred` is what `clipseg segment` wrote (label PNGs and `classes.json`), `--scenes` what `make_scenes` wrote. Classes
are matched by name, so that the order of the ids does not matter; a pixel with any other label counts as wrong.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

THINGS = 19


def class_table(pred: Path, names: list[str]) -> NDArray[np.int64]:
    """[256]: predicted id -> line of classes.txt; ids of other classes go to len(names)."""
    entries = json.loads((pred / "classes.json").read_text(encoding="utf-8"))["classes"]
    table = np.full(256, len(names), np.int64)
    for entry in entries:
        if entry["name"] in names:
            table[entry["id"]] = names.index(entry["name"])
    return table


def find_prediction(pred: Path, name: str) -> Path:
    """The label PNG of one image, wherever below `pred` it lies."""
    stem = Path(name).stem
    found = sorted(p for p in pred.rglob(f"{stem}*.png") if "overlay" not in p.name and "heat" not in str(p))
    if not found:
        raise FileNotFoundError(f"{pred}: no label PNG for {name}")
    return found[0]


def confusion_of(pred: Path, scenes: Path) -> tuple[NDArray[np.int64], list[str]]:
    """[truth, prediction] pixel counts; the last column is 'some other class'."""
    names = (scenes / "classes.txt").read_text(encoding="utf-8").split("\n")[:-1]
    table = class_table(pred, names)
    confusion = np.zeros((len(names) + 1, len(names) + 1), np.int64)
    for path in sorted((scenes / "labels").glob("*.png")):
        truth = np.asarray(Image.open(path)).astype(np.int64)
        guess = table[np.asarray(Image.open(find_prediction(pred, path.name)))]
        if guess.shape != truth.shape:
            raise ValueError(f"{path.name}: prediction {guess.shape}, scene {truth.shape}")
        pairs = truth * len(confusion) + guess
        confusion += np.bincount(pairs.ravel(), minlength=confusion.size).reshape(confusion.shape)
    return confusion, names


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m recipes.emoji.evaluate", description="Score label maps.")
    parser.add_argument("--pred", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True)
    args = parser.parse_args()
    confusion, names = confusion_of(args.pred, args.scenes)
    hit = np.diag(confusion)[:-1]
    union = (confusion.sum(0) + confusion.sum(1))[:-1] - hit
    iou = np.where(union > 0, hit / np.maximum(union, 1), np.nan)
    for name, value in zip(names, iou, strict=True):
        print(f"{name:16s} {100 * value:5.1f}")
    print(f"mIoU over all {len(names)}: {100 * np.nanmean(iou):.1f}")
    print(f"mIoU over the {THINGS} things: {100 * np.nanmean(iou[:THINGS]):.1f}")
    print(f"pixel accuracy: {100 * hit.sum() / confusion.sum():.1f}")


if __name__ == "__main__":
    main()
