"""Outputs keep their ids, stay in their folder, and exist whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from clipseg_cli.errors import OutputError
from clipseg_cli.outputs import FORMATS, Outputs, _canvas, _text, class_table_rows, write_run_info
from clipseg_cli.outputs._colors import BACKGROUND_COLOR, class_colors, srgb_to_lab, voc_palette
from clipseg_cli.outputs._names import safe_name
from clipseg_cli.outputs.labels import encode_labels
from clipseg_cli.outputs.overlay import draw_overlay
from clipseg_cli.types import ClassList, DecodedImage, ImageSource, RunInfo, Segmentation

HOSTILE = [
    "../../x",
    "a/b",
    "c" * 5000,
    "🐱",
    "猫",
    "CON",
    "...hidden",
    "",
    "a\\b:c*?",
    "x\0y\n",
    "-rf",
    "\ud800",
]


def segment(
    shape=(30, 40), names=("background", "cat", "dog"), background=0, heat=True, seed=0
) -> Segmentation:
    rng = np.random.default_rng(seed)
    # Blocks on large ones: nobody's labels are noise of single pixels.
    coarse = rng.integers(0, len(names), np.minimum(shape, 64))
    rows, columns = (np.arange(n) * k // n for n, k in zip(shape, coarse.shape, strict=True))
    labels = coarse[np.ix_(rows, columns)].astype(np.uint8 if len(names) <= 255 else np.uint16)
    scores = rng.random(shape, np.float32)
    image = DecodedImage(
        ImageSource(None, PurePosixPath("x")), rng.integers(0, 255, (*shape, 3)).astype(np.uint8)
    )
    return Segmentation(
        labels,
        scores,
        ClassList(tuple(names), tuple((n,) for n in names), background),
        image,
        (lambda c: np.where(labels == c, scores, np.float32(0))) if heat else None,
    )


def write(name: str, result: Segmentation, stem: Path) -> list[Path]:
    """All files that a format makes of one result."""
    outputs = Outputs((name,), RunInfo(result.classes, {}, {}, {"clipseg": "0"}), stem.parent, {})
    outputs.begin()
    return [*outputs.write(result, stem)[name], *outputs.end()[name]]


def files_below(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if p.is_file()}


OF_ANY_IMAGE = [name for name in FORMATS.names() if name != "video"]
"""Films are of frames of a video: see test_video."""


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
@pytest.mark.parametrize("shape", [(1, 1), (30, 20000), (20000, 30), (1, 700), (700, 1), (2500, 2600)])
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
        assert write(name, segment(names=names, background=None), tmp_path / str(count))


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


# --- colours ---------------------------------------------------------------------------------------------

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def closest_pair(colors: np.ndarray, sight: str) -> float:
    v = colors / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(SIGHT[sight]).T, 0, 1)
    lab = srgb_to_lab(255 * np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(lab, 2))


@pytest.mark.parametrize(("sight", "least"), [("normal", 25), ("protanopia", 15), ("deuteranopia", 15)])
def test_twenty_classes_and_background_can_be_told_apart(sight, least):
    assert closest_pair(class_colors(21, 0), sight) > least  # 2.3 is just noticeable


def test_many_colours_stay_distinct():
    assert closest_pair(class_colors(171, None), "normal") > 8
    assert len(np.unique(class_colors(1000, 3), axis=0)) == 1000


@pytest.mark.parametrize("background", [None, 0, 4])
def test_a_class_keeps_its_colour_whatever_the_number(background):
    many = class_colors(60, background)
    for n in (5, 20, 21, 22, 59):
        assert np.array_equal(class_colors(n, background), many[:n])
    if background is not None:
        assert tuple(many[background]) == BACKGROUND_COLOR
    assert class_colors(0).shape == (0, 3)


# --- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*HOSTILE, "猫" * 100, "con", "LPT1", "a" * 59 + "é", " ", ".", ".."])
def test_safe_name_is_one_short_harmless_part(name):
    safe = safe_name(name)
    assert 1 <= len(safe.encode()) <= 61
    assert Path(safe).name == safe
    assert not re.search(r"[\\/:*?\"<>|.\s\0]", safe)
    assert not safe.startswith("-")
    assert safe.lower() not in ("con", "lpt1")


def test_safe_name_keeps_what_it_can():
    assert safe_name("red car") == "red_car"
    assert safe_name("猫") == "猫"
    assert safe_name("Straße") == "Straße"
    assert safe_name("🐱") == "class"


# --- overlay ---------------------------------------------------------------------------------------------


def test_legend_never_covers_the_picture():
    flat = segment((800, 1000))
    flat.labels[:] = 0
    flat.labels[400:, 500:] = 1
    whole = np.asarray(draw_overlay(flat))
    colors = class_colors(3, 0)
    assert np.array_equal(whole[:800, :1000], _canvas.tint(flat.image.pixels, flat.labels, colors, 0))
    assert whole.shape[0] * whole.shape[1] > 800 * 1000


def test_background_is_left_almost_as_it_was():
    result = segment((64, 64))
    result.labels[:] = 0
    result.labels[:32] = 1
    change = np.abs(
        _canvas.tint(result.image.pixels, result.labels, class_colors(3, 0), 0).astype(int)
        - result.image.pixels
    )
    assert change[40:].mean() < 12 < 40 < change[:30].mean()


def test_overlay_of_a_large_picture_is_capped():
    assert draw_overlay(segment((3000, 4000))).width <= _canvas.MAX_SIDE + 600


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1)])
def test_the_smallest_pictures_have_a_legend_of_their_own_width(shape):
    """Every class of one pixel is named, and nothing of the picture is covered."""
    result = segment(shape, ("cat", "dog", "cow"), None)
    result.labels.flat = np.arange(result.labels.size)
    whole = np.asarray(draw_overlay(result))
    rows, columns = _canvas.show_size(*shape)
    picture = whole[:rows, :columns]
    for label in range(3):
        color = class_colors(3)[label]
        swatches = (whole == color).all(axis=2).sum() - (picture == color).all(axis=2).sum()
        assert (swatches > 100) == (label < result.labels.size)


@pytest.mark.parametrize("shape", [(1, 1), (2, 700), (640, 640), (224, 224), (3000, 4000), (30, 20000)])
def test_shown_size_keeps_the_aspect(shape):
    rows, columns = _canvas.show_size(*shape)
    assert _canvas.MIN_SIDE <= max(rows, columns) <= _canvas.MAX_SIDE
    assert abs(rows - columns * shape[0] / shape[1]) <= 1


@pytest.fixture
def latin_only(monkeypatch):
    """Without any font of the system."""

    def forget():
        for cached in (_text.drawable, _text._has, _text._font):
            cached.cache_clear()

    monkeypatch.setattr(_text, "_FONTS", _text._FONTS[:2])
    forget()
    yield
    forget()


def test_text_without_a_font_is_replaced_and_never_fails(latin_only):
    for text, shown in {
        "cat": "cat",
        "猫": "class 1",
        "🦄": "(unicorn face)",
        "$5 → 🦄": "$5 → (unicorn face)",
        "a\n\u200db\ufe0f": "a b",
        "\u200d": "class 1",
        "Straße, κουτί, кот": "Straße, κουτί, кот",
    }.items():
        words, font = _text.drawable(text, "class 1")
        assert words == shown
        assert isinstance(font.path, str) == any(ord(c) > 255 for c in shown)  # matplotlib's, or Pillow's own


@pytest.mark.parametrize("width", [0, 30, 100, 400])
def test_long_text_is_cut_to_its_width(width):
    long = "a very long class name " * 3
    cut = _text.Line.of(long, 20, width)
    assert cut.text.endswith("…") and long.startswith(cut.text[:-1])
    assert cut.width <= max(width, _text.Line.of("…", 20).width)
    longer = _text.Line.of(long[: len(cut.text)].strip() + "mm…", 20)
    assert longer.width > width
    assert _text.Line.of("cat", 20, 400).text == "cat"


def test_pictures_with_words_do_not_load_matplotlib():
    """It takes long, and labelling pictures needs none of it."""
    code = (
        "import sys; from clipseg_cli.cli.main import build, commands; build(commands())\n"
        "from clipseg_cli.outputs import FORMATS\n"
        "from clipseg_cli.outputs import *; [FORMATS.get(name) for name in FORMATS.names()]\n"
        "from clipseg_cli.outputs._text import Line; Line.of('κ', 16)\n"
        "sys.exit('matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# --- heat maps -------------------------------------------------------------------------------------------


def test_no_heat_map_without_scores_or_without_heat(tmp_path):
    assert not FORMATS.get("heatmaps").default
    assert write("heatmaps", segment(heat=False), tmp_path / "x") == []
    result = segment()
    result.labels[result.labels == 2] = 1
    cold = dataclasses.replace(result, class_scores=lambda c: np.full((30, 40), 0.05, np.float32))
    written = write("heatmaps", cold, tmp_path / "x")
    assert [p.name for p in written] == ["0_background.jpg", "1_cat.jpg"]  # the dog won nothing


def test_heat_maps_ask_for_one_class_at_a_time(tmp_path):
    asked = []
    result = segment()
    scores = lambda c: asked.append(c) or np.full((30, 40), 0.5, np.float32)  # noqa: E731
    write("heatmaps", dataclasses.replace(result, class_scores=scores), tmp_path / "x")
    assert asked == [0, 1, 2]


def test_sure_is_brighter_than_unsure(tmp_path):
    result = segment((700, 700))
    result.image.pixels[:] = 128
    half = np.zeros((700, 700), np.float32)
    half[:, 350:] = 1
    paths = write("heatmaps", dataclasses.replace(result, class_scores=lambda c: half), tmp_path / "x")
    grey = np.asarray(Image.open(paths[0]).convert("L"))[-600:].astype(int)
    assert grey[:, 360:690].min() > grey[:, :340].max() + 80


def test_heat_maps_as_data_are_the_probabilities(tmp_path):
    maps = np.random.default_rng(0).random((3, 30, 40), np.float32)
    maps[1] *= 0.005  # nowhere probable: left out
    result = dataclasses.replace(segment(), class_scores=lambda c: maps[c])
    (path,) = write("probabilities", result, tmp_path / "x")
    with np.load(path) as found:
        assert set(found) == {"clipseg", "classes", "0", "2"}
        assert found["classes"].tolist() == list(result.classes.names)
        for key in ("0", "2"):
            assert np.abs(found[key] - maps[int(key)]).max() < 5e-4
    assert write("probabilities", segment(heat=False), tmp_path / "y") == []


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
