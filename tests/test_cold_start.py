"""What a command imports: torch, and nothing that this command does not use."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import PurePosixPath

import numpy as np
import pytest
from review_runs import MAPS, class_list, make_run

from clipseg_cli.types import DecodedImage, ImageSource, Segmentation
from clipseg_cli.utils.imports import module_alone

HEAVY = {
    "open_clip",
    "torchvision",
    "timm",
    "transformers",
    "matplotlib",
    "sympy",
    "tensorboard",
    "onnxruntime",
}
TOKENIZER = {"ftfy", "regex"}

SCRIPT = """
import sys
from clipseg_cli.cli.main import main
for command in " ".join(sys.argv[1:]).split(" ; "):
    try: main(command.split())
    except SystemExit as end: assert not end.code, end.code
    print("loaded", *{name.partition(".")[0] for name in sys.modules})
"""


def imported(*args, env) -> list[set[str]]:
    """What is imported after each of some commands of one process, between which ; stands."""
    command = [sys.executable, "-c", SCRIPT, *map(str, args)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in done.stdout.splitlines()]
    return [set(words[1:]) for words in said if words[:1] == ["loaded"]]


def test_segment_imports_torch_and_little_else(cli, process_env, make_image, tmp_path, monkeypatch):
    """Words that are in the cache need no tokenizer either; others do, and nothing else."""
    monkeypatch.setenv("CLIPSEG_CACHE", str(tmp_path / "cache"))
    words = ("--model", "emoji", "--templates", "single", "--classes")
    segment = ("segment", make_image(tmp_path / "a.png", 48, 64), *words)
    assert cli(*segment, "car,cat", "--out", tmp_path / "here").code == 0
    command = (
        *segment,
        "car,cat",
        "--out",
        tmp_path / "known",
        ";",
        *segment,
        "dog",
        "--out",
        tmp_path / "new",
    )
    known, new = imported(*command, env={**process_env, "CLIPSEG_CACHE": str(tmp_path / "cache")})
    assert "torch" in known
    assert not known & (HEAVY | TOKENIZER)
    assert set(TOKENIZER) <= new
    assert not new & HEAVY


def test_who_looks_at_label_maps_imports_no_torch(process_env, tmp_path):
    run, images = make_run(tmp_path, MAPS)
    (loaded,) = imported("review", run, "--images", images, "--out", tmp_path / "page", env=process_env)
    assert "clipseg_cli" in loaded and "torch" not in loaded


@pytest.mark.parametrize("loaded", [True, False])
def test_shares_are_the_same_with_torch_and_without(loaded, monkeypatch):
    labels = np.random.default_rng(0).integers(0, 4, (37, 53)).astype(np.uint8)
    labels[:5] = 255
    scores = np.random.default_rng(1).random(labels.shape, np.float32)
    if loaded:
        importlib.import_module("torch")
    else:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    classes = class_list()
    image = DecodedImage(ImageSource(None, PurePosixPath("x")), labels)
    found = Segmentation(labels, scores, classes, image).shares()
    assert [share.pixels for share in found] == [int((labels == c).sum()) for c in range(len(classes))]
    for share in found:
        if share.pixels:
            assert share.confidence == pytest.approx(scores[labels == share.id].mean(dtype=float), rel=1e-9)


def test_a_module_alone_is_the_packages_own_where_that_is_imported(monkeypatch):
    import open_clip

    assert module_alone("open_clip", "pretrained") is open_clip.pretrained


def test_a_module_alone_says_the_same_without_the_package(monkeypatch):
    import open_clip

    known = open_clip.list_pretrained(), open_clip.OPENAI_IMAGENET_TEMPLATES[0]("cat")
    words = open_clip.tokenize(["a rather long name of a thing", "狗"])
    monkeypatch.delitem(sys.modules, "open_clip")
    alone = {
        name: module_alone("open_clip", name) for name in ("pretrained", "zero_shot_metadata", "tokenizer")
    }
    assert "open_clip" not in sys.modules
    assert alone["pretrained"].list_pretrained() == known[0]
    assert alone["zero_shot_metadata"].OPENAI_IMAGENET_TEMPLATES[0]("cat") == known[1]
    assert alone["tokenizer"].tokenize(["a rather long name of a thing", "狗"]).equal(words)


def test_a_module_that_needs_its_package_gets_it(monkeypatch, tmp_path):
    package = tmp_path / "needy_package"
    package.mkdir()
    (package / "__init__.py").write_text("value = 3\n")
    (package / "part.py").write_text("from . import value\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert module_alone("needy_package", "part").value == 3
    for name in [name for name in sys.modules if "needy_package" in name]:
        monkeypatch.delitem(sys.modules, name)


def test_a_package_that_is_not_there_is_said():
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        module_alone("no_such_package", "part")
