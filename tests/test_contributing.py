"""The examples of CONTRIBUTING.md, as they stand there: each is one file in a registry, or two, and works."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import save_image
from PIL import Image

from clipseg_cli.data.datasets import open_dataset

PAGE = Path(__file__).parent.parent / "CONTRIBUTING.md"
EXAMPLES = dict(
    re.findall(r"^```python (\S+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
)

WORDS = ("cat", "dog", "cow", "tree", "sky", "road")


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Lay the examples beside the files of their folders, for one test."""

    def add(name):
        for path in (path for path in EXAMPLES if path.endswith(f"/{name}.py")):
            package = importlib.import_module(str(Path(path).parent).replace("/", "."))
            own = tmp_path / "added" / package.__name__
            own.mkdir(parents=True)
            (own / f"{name}.py").write_text(EXAMPLES[path], "utf-8")
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(own)])
            monkeypatch.setitem(sys.modules, f"{package.__name__}.{name}", None)
            monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}")

    return add


@pytest.fixture
def segment(cli, tiny_clip, make_image, tmp_path):
    photo = make_image(tmp_path / "photo.png", 60, 90)

    def run(out, *args):
        words = ("-c", ",".join(WORDS), "--background", "none", "--templates", "single")
        done = cli("segment", photo, *words, *tiny_clip.options, "--out", tmp_path / out, *args)
        assert done.code == 0, done.err
        with Image.open(tmp_path / out / "photo.png") as image:
            return np.asarray(image).copy()

    return run


def test_there_is_an_example_for_each_registry():
    assert {str(Path(path).parent) for path in EXAMPLES} == {
        "clipseg_cli/methods",
        "clipseg_cli/refinements",
        "clipseg_cli/regions",
        "clipseg_cli/outputs",
        "clipseg_cli/data/datasets",
        "clipseg_cli/cli",
        "clipseg_cli/commands",
    }


def test_a_method(added, segment):
    added("mine")
    plain = segment("a", "--method", "mine")
    assert not np.array_equal(plain, segment("b", "--method", "mine", "--set", "mine.sharpness=50"))


def test_a_refinement(added, segment, tmp_path):
    added("soften")
    plain, soft = segment("a"), segment("b", "--set", "soften=1", "--set", "soften.width=9")
    changes = [int((np.diff(labels.astype(int), axis=1) != 0).sum()) for labels in (plain, soft)]
    assert changes[1] < changes[0]
    record = json.loads((tmp_path / "b/classes.json").read_text())["model"]["settings"]["refinements"]
    assert record == [{"name": "soften", "value": 1.0, "width": 9}]


def test_a_source_of_regions(added, segment):
    added("squares")
    labels = segment("a", "--regions", "squares", "--region-vote", "--set", "squares.side=30")
    plain = segment("b")
    for rows, columns in np.ndindex(2, 3):
        square = np.s_[30 * rows : 30 * rows + 30, 30 * columns : 30 * columns + 30]
        assert np.unique(labels[square]).tolist() == [np.bincount(plain[square].ravel()).argmax()]


def test_an_output_format(added, segment, tmp_path):
    added("boxes")
    labels = segment("a", "--formats", "labels,boxes", "--set", "boxes.least=2")
    boxes = json.loads((tmp_path / "a/photo_boxes.json").read_text())["boxes"]
    assert set(boxes) == {WORDS[i] for i in np.unique(labels) if (labels == i).sum() > 1} != set()
    for name, (left, top, width, height) in boxes.items():
        inside = labels == WORDS.index(name)
        assert inside[top : top + height, left : left + width].sum() == inside.sum()


def test_a_data_set(added, tmp_path):
    added("shop")
    for split, name in (("train", "000001"), ("test", "000900"), ("test", "sub/000901")):
        save_image(tmp_path / f"shop/photos/{split}/{name}.jpg")
        path = tmp_path / f"shop/masks/{split}/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(tmp_path / f"shop/photos/{split}/{name}.jpg") as image:
            Image.new("L", image.size, 19).save(path)
    found = open_dataset(tmp_path / "shop", purpose="score")
    assert found.title == "Shop windows" and len(found.samples) == 2 and found.benchmark == "voc20"


def test_a_command(added, cli):
    assert cli("words", "voc21").code == 2
    added("words")
    done = cli("words", "cat|kitten,dog", "--at-most", 1, "--json")
    assert done.code == 0 and json.loads(done.out) == {"cat": ["cat"], "dog": ["dog"]}
    assert "Show which words stand" in cli("--help").out
