"""What is for eyes: colours that can be told apart, names in file names, overlays with legends, heat maps."""

from __future__ import annotations

import dataclasses
import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written import HOSTILE, segment, write

from clipseg_cli.outputs import FORMATS, _canvas, _text
from clipseg_cli.outputs._colors import BACKGROUND_COLOR, class_colors, srgb_to_lab
from clipseg_cli.outputs._names import safe_name
from clipseg_cli.outputs.overlay import draw_overlay

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
    image = whole[:rows, :columns]
    for label in range(3):
        color = class_colors(3)[label]
        swatches = (whole == color).all(axis=2).sum() - (image == color).all(axis=2).sum()
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


@pytest.mark.parametrize("x", [-9, -2, 0, 5, 13, 40])
@pytest.mark.parametrize("y", [-9, -3, 0, 5, 17, 40])
def test_a_patch_lies_on_paper_as_far_as_there_is_some(x, y):
    patch = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    paper, expected = np.full((20, 16, 3), 255, np.uint8), Image.new("RGB", (16, 20), "white")
    _text.place(patch, paper, x, y)
    expected.paste(Image.fromarray(patch), (x, y))
    assert np.array_equal(paper, np.asarray(expected))


def test_letters_taller_than_the_legend_do_not_leave_it():
    tall = "a" + "\u0301\u0302\u0303" * 40
    result = segment((30, 700), (tall, "dog", "cow"), None)
    result.labels[:] = np.arange(700) // 300
    assert np.asarray(draw_overlay(result)).shape[1] >= 700


@pytest.mark.parametrize(("dtype", "classes"), [(np.uint8, 21), (np.uint8, 255), (np.uint16, 300)])
def test_classes_are_painted_in_their_colours(dtype, classes):
    labels = np.random.default_rng(0).integers(0, classes, (30, 40)).astype(dtype)
    colors = class_colors(classes, 0)
    painted = _canvas.tint(np.zeros((30, 40, 3), np.uint8), labels, colors, None, 1.0)
    assert np.array_equal(painted, colors[labels])


def test_shares_do_not_depend_on_how_labels_lie_in_memory():
    labels = np.random.default_rng(0).integers(0, 3, (30, 40)).astype(np.uint8)
    kept = labels.copy()
    kept.flags.writeable = False
    one = segment((30, 40))
    counted = [
        dataclasses.replace(one, labels=own).shares()
        for own in (labels, kept, labels.astype(np.uint16), np.asfortranarray(labels))
    ]
    assert counted == [counted[0]] * 4
    assert [share.pixels for share in counted[0]] == np.bincount(labels.ravel()).tolist()


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
