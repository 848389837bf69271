"""Mistakes and attacks through the real command line: nothing is lost, nothing hangs, one sentence each."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def segment(cli, tiny_clip, tmp_path, monkeypatch):
    """Run `clipseg segment` with the tiny model and one template, from a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*args, **kwargs):
        return cli("segment", *args, *tiny_clip.options, "-c", "cat,dog", "--templates", "single", **kwargs)

    return run


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The pictures themselves are never written over


@pytest.mark.parametrize(
    ("inputs", "out"),
    [
        (["x.png"], "."),
        (["x.png"], "linked"),
        (["sub/x.jpg", "x.png"], "sub/.."),
        (["sub/photo.jpg", "photo_overlay.jpg"], "."),
        (["sub/to_x.png"], "."),
    ],
)
def test_an_output_never_replaces_an_input(segment, make_image, tmp_path, inputs, out):
    for name in ("x.png", "sub/photo.jpg", "photo_overlay.jpg", "sub/x.jpg"):
        make_image(tmp_path / name)
    (tmp_path / "linked").symlink_to(tmp_path, target_is_directory=True)
    shutil.copy(tmp_path / "x.png", tmp_path / "to_x.png")
    (tmp_path / "sub" / "to_x.png").symlink_to(tmp_path / "to_x.png")
    before = everything(tmp_path)
    done = segment(*inputs, "--out", out)
    if done.code == 0:  # its output got another name
        assert before.items() <= everything(tmp_path).items()
        return
    assert done.code == 1
    assert "is one of the input pictures" in done.err and "Hint: choose another folder with --out" in done.err
    assert everything(tmp_path) == before


def test_a_folder_is_not_its_own_output_folder(segment, make_image, tmp_path):
    make_image(tmp_path / "in" / "x.jpg")
    before = everything(tmp_path)
    done = segment("in", "--out", "in/")
    assert done.code == 1
    assert "Error: in: is the output folder itself" in done.err
    assert everything(tmp_path) == before


def test_an_output_folder_below_the_input_is_not_read_the_next_time(segment, make_image, tmp_path):
    make_image(tmp_path / "in" / "x.jpg")
    for _ in range(2):
        done = segment("in", "--out", "in/labels", "--json")
        assert [image["image"] for image in json.loads(done.out)["images"]] == ["in/x.jpg"]
