"""Drawn images with labels, banks of memory over them, and how well these label.

A test file imports the fixtures that it uses; their names are `drawn`, `make` and `evaluate`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {"brick": (180, 40, 40), "water": (40, 60, 190), "grass": (50, 170, 60)}
"""Class -> its colour in the drawn pictures."""


def draw(root: Path, count: int, colours: Any = COLOURS, seed: int = 0) -> Path:
    """An own data set of noisy pictures [64, 64] in bands of colour, the first half of them in train.txt."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    palette = np.array([COLOURS[name] for name in colours])
    names = [f"p{i}" for i in range(count)]
    for name in names:
        ids = np.repeat(rng.permutation(len(palette)), [24, 16, 24][: len(palette)])[:64]
        ids = np.broadcast_to(np.resize(ids, 64)[:, None], (64, 64))
        ids = ids if rng.random() < 0.5 else ids.T
        noisy = palette[ids] + rng.normal(0, 12, (64, 64, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{name}.png")
        Image.fromarray(ids.astype(np.uint8)).save(root / "masks" / f"{name}.png")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in colours))
    (root / "train.txt").write_text("".join(f"{name}\n" for name in names[: count // 2]))
    (root / "val.txt").write_text("".join(f"{name}\n" for name in names[count // 2 :]))
    return root


@pytest.fixture(scope="module", name="drawn")
def drawn_data(tmp_path_factory) -> Path:
    return draw(tmp_path_factory.mktemp("drawn") / "data", 8)


@pytest.fixture(name="make")
def make_bank(cli, tiny_clip, tmp_path):
    """`make("--labels", ...)` into the bank `tmp_path / "bank"`."""

    def run(*options: object, **more: object):
        model = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights)
        return cli("index", *options, *model, "--out", tmp_path / "bank", "--short-side", 64, *more.values())

    return run


@pytest.fixture(name="evaluate")
def evaluate_command(cli, tiny_clip, tmp_path):
    def run(root: Path, *options: object):
        model = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights, "--json", "--quiet")
        found = cli("eval", "--dataset", root, *model, "--out", tmp_path / "eval", "--name", "own", *options)
        if found.code == 0:
            return json.loads((tmp_path / "eval" / "own" / "results.json").read_text())["scores"]["mIoU"]
        return found

    return run
