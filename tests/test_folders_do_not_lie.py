"""What lies in an output folder stays true: one class list, own files only, what ids mean inside each file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from clipseg_cli.outputs.labels import MARK, facts_in, read_facts


@pytest.fixture
def segment(cli, tiny_clip, tmp_path, monkeypatch):
    """The command in a folder of its own, with a tiny model."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        return cli("segment", *args, *tiny_clip.options, "--templates", "single", "--quiet")

    return run


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "words",
    ["dog,cat", "cat", "cat,dog,cow", "cat|kitten,dog"],
    ids=["another order", "fewer", "more", "other synonyms"],
)
def test_a_folder_of_maps_refuses_other_classes_and_shows_both_lists(segment, make_image, tmp_path, words):
    make_image(tmp_path / "a.png", 40, 50)
    make_image(tmp_path / "b.png", 40, 50)
    assert segment("a.png", "-c", "cat,dog", "--out", "maps").code == 0
    before = content(tmp_path / "maps")
    done = segment("b.png", "-c", words, "--out", "maps")
    assert done.code == 1
    assert "holds label maps of other classes" in done.err
    assert "0 background" in done.err and "1 cat, 2 dog" in done.err
    assert content(tmp_path / "maps") == before
    assert segment("b.png", "-c", "cat,dog", "--out", "maps").code == 0
    assert set(content(tmp_path / "maps")) > set(before)


def test_the_default_folder_gives_way_to_a_numbered_one(cli, tiny_clip, segment, make_image, tmp_path):
    make_image(tmp_path / "a.png", 40, 50)
    assert segment("a.png", "-c", "cat").code == 0
    first = content(tmp_path / "clipseg-out")
    loud = cli("segment", "a.png", "-c", "dog", *tiny_clip.options, "--templates", "single")
    assert loud.code == 0 and "writing to clipseg-out-2" in " ".join(loud.err.split())
    assert segment("a.png", "-c", "dog").code == 0  # the same list again: the same folder
    assert segment(".", "-c", "cow").code == 0  # results are not taken for pictures
    assert content(tmp_path / "clipseg-out") == first
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == [
        "clipseg-out",
        "clipseg-out-2",
        "clipseg-out-3",
    ]
    assert {p.name for p in (tmp_path / "clipseg-out-3").iterdir()} == {
        "a.png",
        "a_overlay.jpg",
        "classes.json",
    }


def test_files_of_strangers_are_not_replaced(segment, make_image, tmp_path):
    make_image(tmp_path / "photo.jpg", 40, 50)
    make_image(tmp_path / "out/photo.png", 30, 30)
    before = content(tmp_path / "out")
    done = segment("photo.jpg", "-c", "cat", "--out", "out")
    assert done.code == 1 and "was not made by clipseg" in done.err
    assert content(tmp_path / "out") == before
    (tmp_path / "own").mkdir()
    (tmp_path / "own/classes.json").write_text('{"classes": ["mine"]}')
    done = segment("photo.jpg", "-c", "cat", "--out", "own")
    assert done.code == 1 and "classes.json was not made by clipseg" in done.err
    assert content(tmp_path / "own") == {"classes.json": b'{"classes": ["mine"]}'}


def test_a_class_list_that_is_nested_without_end_is_a_stranger_s(segment, make_image, tmp_path):
    make_image(tmp_path / "a.png", 40, 50)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/classes.json").write_text("[" * 200_000)
    done = segment("a.png", "-c", "cat", "--out", "out")
    assert done.code == 1 and "classes.json was not made by clipseg" in done.err, done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["classes.json"]
    assert facts_in({MARK: "[" * 200_000}) is None


def test_own_files_are_written_again(segment, make_image, tmp_path):
    make_image(tmp_path / "a.png", 40, 50)
    for _ in range(2):
        assert (
            segment("a.png", "-c", "cat", "--out", "out", "--formats", "labels,overlay,heatmaps,shares").code
            == 0
        )


@pytest.mark.parametrize("count", [2, 300])
def test_what_the_ids_mean_travels_inside_each_map(segment, make_image, tmp_path, count):
    make_image(tmp_path / "a.png", 40, 50)
    names = [f"thing {i}" for i in range(count)]
    assert segment("a.png", "-c", ",".join(names), "--background", "none", "--out", "out").code == 0
    with Image.open(tmp_path / "out/a.png") as image:
        facts = read_facts(image)
    assert facts["classes"] == names and facts["background"] is None
    assert facts["ignore"] == (255 if count < 256 else 65535)
    assert facts["image"] == "a" and "tiny" in facts["made_by"]


def test_colours_in_the_class_list_are_those_of_the_map(segment, make_image, tmp_path):
    make_image(tmp_path / "a.png", 40, 50)
    assert segment("a.png", "-c", "cat,dog", "--out", "out").code == 0
    rows = json.loads((tmp_path / "out/classes.json").read_text())["classes"]
    with Image.open(tmp_path / "out/a.png") as image:
        palette = np.array(image.getpalette()).reshape(-1, 3)
    assert [row["color"] for row in rows] == [
        "#{:02x}{:02x}{:02x}".format(*tuple(palette[row["id"]])) for row in rows
    ]


def test_the_record_remembers_with_what_older_maps_were_made(segment, make_image, tmp_path):
    make_image(tmp_path / "a.png", 40, 50)
    make_image(tmp_path / "b.png", 40, 50)
    for name, method in (("a.png", "sclip"), ("b.png", "naclip"), ("b.png", "naclip")):
        assert segment(name, "-c", "cat", "--out", "out", "--method", method).code == 0
    record = json.loads((tmp_path / "out/classes.json").read_text())
    assert record["method"] == "naclip"
    assert [entry["method"] for entry in record["earlier"]] == ["sclip"]
    with Image.open(tmp_path / "out/a.png") as image:
        assert read_facts(image)["made_by"].endswith("sclip")


def test_shares_of_all_images_lie_in_one_file_and_earlier_ones_stay(segment, make_image, tmp_path):
    make_image(tmp_path / "a.png", 40, 50)
    make_image(tmp_path / "b.png", 20, 50)
    for image in ("a.png", "b.png"):
        assert segment(image, "-c", "cat,dog", "--out", "out", "--formats", "shares").code == 0
    images = json.loads((tmp_path / "out/shares.json").read_text())["images"]
    assert list(images) == ["a", "b"] and images["b"]["height"] == 20
    assert sum(row["share"] for row in images["a"]["classes"]) == pytest.approx(1)
    assert set(content(tmp_path / "out")) == {"shares.json", "classes.json"}


def test_formats_have_options_and_unknown_ones_are_named(segment, make_image, tmp_path):
    make_image(tmp_path / "a.png", 40, 50)
    assert segment("a.png", "-c", "cat", "--out", "plain").code == 0
    assert segment("a.png", "-c", "cat", "--out", "faint", "--set", "overlay.opacity=0.1").code == 0
    assert content(tmp_path / "plain")["a_overlay.jpg"] != content(tmp_path / "faint")["a_overlay.jpg"]
    done = segment("a.png", "-c", "cat", "--out", "x", "--formats", "labels,overlays")
    assert done.code == 2 and "unknown output format 'overlays'" in done.err
    done = segment("a.png", "-c", "cat", "--out", "x", "--formats", "labels", "--set", "overlay.opacity=0.1")
    assert done.code == 2 and "does nothing without --formats overlay" in done.err
    assert not (tmp_path / "x").exists()
