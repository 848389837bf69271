"""Outputs keep their ids, stay in their folder, and exist whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written import HOSTILE, OF_ANY_IMAGE, files_below, segment, write

from clipseg_cli.errors import OutputError
from clipseg_cli.outputs import FORMATS, class_table_rows, write_run_info
from clipseg_cli.outputs._colors import voc_palette
from clipseg_cli.outputs.labels import encode_labels
from clipseg_cli.types import ClassList, RunInfo

# --- over the registry: a new format is tested when its file appears --------------------------------------


@pytest.mark.parametrize("name", OF_ANY_IMAGE)
def test_writes_what_it_says_and_only_below_its_stem(name, tmp_path):
    stem = tmp_path / "out" / "sub" / "my.photo.v2"
    written = write(name, segment(), stem)
    assert files_below(tmp_path) == set(written) != set()
    for path in written:
        first = path.relative_to(stem.parent).parts[0]
        if ending := FORMATS.get(name).ending:
            assert first == stem.name + ending  # dots in names survive
        else:  # a file or a folder for all images, so that no image can have its name
            assert not first.startswith(stem.name)
        if path.suffix == ".json":
            assert json.loads(path.read_text("utf-8"))
        elif path.suffix in (".png", ".jpg"):
            with Image.open(path) as image:
                image.load()
        else:
            assert path.stat().st_size


@pytest.mark.parametrize("name", OF_ANY_IMAGE)
def test_hostile_class_names_stay_inside(name, tmp_path):
    stem = tmp_path / "out" / "x"
    written = write(name, segment(names=HOSTILE, background=None), stem)
    assert files_below(tmp_path) == set(written)
    assert all(path.resolve().is_relative_to(tmp_path / "out") for path in written)
    assert len(set(written)) == len(written)
    assert len(written) in (1, len(HOSTILE)) or not FORMATS.get(name).class_scores


@pytest.mark.parametrize("name", OF_ANY_IMAGE)
@pytest.mark.parametrize("shape", [(1, 1), (30, 20000), (20000, 30), (1, 700), (700, 1), (800, 2100)])
def test_every_shape(name, shape, tmp_path):
    for path in write(name, segment(shape), tmp_path / "x"):
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.size == shape[::-1]
        elif path.name == "shares.json":
            (entry,) = json.loads(path.read_text("utf-8"))["images"].values()
            assert (entry["height"], entry["width"]) == shape
        elif path.suffix == ".jpg":
            with Image.open(path) as image:
                assert image.width * image.height >= min(shape[0] * shape[1], 640 * 100)


@pytest.mark.parametrize("name", OF_ANY_IMAGE)
def test_one_class_and_three_hundred(name, tmp_path):
    for count in (1, 300):
        names = [f"class number {i}" for i in range(count)]
        result = segment(
            (6, 640), names=names, background=None
        )  # of 640 pixels and more, images are not enlarged
        assert write(name, result, tmp_path / str(count))


@pytest.mark.parametrize("name", OF_ANY_IMAGE)
def test_result_is_not_changed(name, tmp_path):
    result = segment()
    before = result.labels.copy(), result.image.pixels.copy(), result.scores.copy()
    write(name, result, tmp_path / "x")
    for old, new in zip(before, (result.labels, result.image.pixels, result.scores), strict=True):
        assert np.array_equal(old, new)


class _FullDisk(io.BytesIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", OF_ANY_IMAGE)
def test_full_disk_leaves_nothing_and_old_files_whole(name, tmp_path, monkeypatch):
    stem = tmp_path / "x"
    old = {p: p.read_bytes() for p in write(name, segment(), stem)}

    def full(handle, mode):
        os.close(handle)
        return _FullDisk()

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OutputError, match="no space left") as caught:
        write(name, segment(seed=1), stem)
    assert "--out" in caught.value.hint
    with pytest.raises(OutputError):
        write(name, segment(), tmp_path / "new" / "y")
    assert {p: p.read_bytes() for p in files_below(tmp_path)} == old


@pytest.mark.parametrize("name", OF_ANY_IMAGE)
def test_file_in_the_way_of_a_folder(name, tmp_path):
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write"):
        write(name, segment(), tmp_path / "out" / "x")


# --- labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 21, 255, 256, 300])
def test_ids_survive_the_png(count, tmp_path):
    result = segment((64, 64), [str(i) for i in range(count)])
    result.labels[0, :2] = 0, count - 1
    with Image.open(io.BytesIO(encode_labels(result.labels, result.classes))) as image:
        assert np.array_equal(np.asarray(image), result.labels)
        if count <= 255:
            assert image.mode == "P"
            assert image.getpalette() == voc_palette().ravel().tolist()
        else:
            assert image.mode.startswith("I")
    (path,) = write("labels", result, tmp_path / "x")
    assert path.read_bytes() == encode_labels(result.labels, result.classes, image="x")


def test_voc_palette_is_the_published_one():
    palette = voc_palette()
    assert palette[[0, 1, 2, 15, 20, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]
    assert len(np.unique(palette, axis=0)) == 256


# --- classes.json ----------------------------------------------------------------------------------------


def test_classes_json_says_everything(tmp_path):
    classes = ClassList(("background", "猫"), (("sky", "grass"), ("cat", "kitten")), 0)
    options = {
        "out": Path("a/b"),
        "images": ("x.jpg", "\udce9.jpg"),
        "method": "maskclip",
        "scale": float("nan"),
        "n": np.int64(3),
        "set": {"b", "a"},
        "classes": classes,
    }
    path = write_run_info(RunInfo(classes, options, {"name": "emoji"}, {"torch": "2"}), tmp_path)
    data = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert path == tmp_path / "classes.json"
    assert data["classes"] == class_table_rows(classes)
    assert data["classes"][1] == {
        "id": 1,
        "name": "猫",
        "words": ["cat", "kitten"],
        "color": "#800000",
        "overlay_color": "#0072b2",
    }
    assert data["background"] == 0
    assert data["method"] == "maskclip"
    assert data["options"]["out"] == "a/b"
    assert data["options"]["scale"] is None
    assert data["options"]["n"] == 3
    assert data["options"]["set"] == ["a", "b"]
    assert data["options"]["classes"]["names"] == ["background", "猫"]
    assert data["model"] == {"name": "emoji"}
    assert data["versions"] == {"torch": "2"}
    assert "猫" in path.read_text(encoding="utf-8")
