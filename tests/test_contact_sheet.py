"""The contact sheet of a run: every picture beside its labels, a legend, and what has no label hatched."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clipseg_cli.outputs import class_colors, write_contact_sheet
from clipseg_cli.types import ClassList, ClassShare

CLASSES = ClassList(("background", "cat", "dog"), (("sky",), ("cat",), ("dog",)), 0)


def shares(*pixels, classes=CLASSES):
    total = sum(pixels)
    return [
        ClassShare(i, name, n, n / total if total else 0.0, 0.5)
        for i, (name, n) in enumerate(zip(classes.names, pixels, strict=True))
    ]


def picture(height=60, width=80, label=1, colour=(255, 255, 255)):
    pixels = np.full((height, width, 3), colour, np.uint8)
    return pixels, np.full((height, width), label, np.int32)


def sheet(path, pictures, classes=CLASSES, counts=(1, 1, 1), **options):
    named = [(f"name {i}", *entry) for i, entry in enumerate(pictures)]
    write_contact_sheet(path, named, classes, shares(*counts, classes=classes), "title", **options)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 24])
def test_any_number_of_pictures_fits(tmp_path, count):
    found = sheet(tmp_path / "x.png", [picture()] * count)
    columns, rows = max(1, min(4, count)), -(-count // 4)
    assert found.shape[1] == max(850, 2 * 20 + columns * 410 - 10)
    assert found.shape[0] > rows * 150
    assert (found[-5:] == 255).all()  # nothing is cut off below


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (1, 500), (500, 1), (4000, 3000)])
def test_any_shape_of_picture_fits(tmp_path, size):
    found = sheet(tmp_path / "x.png", [picture(*size, colour=(10, 200, 30))])
    shown = (found == (10, 200, 30)).all(axis=2)
    height, width = np.ptp(np.nonzero(shown)[0]) + 1, np.ptp(np.nonzero(shown)[1]) + 1
    assert max(height, width) == 200
    assert abs(height / width - size[0] / size[1]) <= 0.02 * size[0] / size[1] or min(height, width) == 1


def test_portraits_stand_closer_together(tmp_path):
    upright = sheet(tmp_path / "x.png", [picture(200, 100)] * 4)
    assert upright.shape[1] == 2 * 20 + 4 * 210 - 10


def test_picture_and_labels_stand_side_by_side(tmp_path):
    pixels, labels = picture(colour=(10, 200, 30))
    labels[:, 40:] = 0
    found = sheet(tmp_path / "x.png", [(pixels, labels)])
    line = found[64 + 75]  # through the middle of the tile, which begins below the title
    assert (line[25:215] == (10, 200, 30)).all()
    cat, background = line[220 + 50], line[220 + 150]
    assert np.abs(cat.astype(int) - class_colors(3, 0)[1]).sum() < np.abs(np.int64((10, 200, 30)) - cat).sum()
    assert tuple(cat) != tuple(background)


def test_what_has_no_label_is_hatched_and_in_the_legend(tmp_path):
    plain = sheet(tmp_path / "x.png", [picture(label=1)])
    hatched = sheet(tmp_path / "y.png", [picture(label=-1)], ignored=0.5)
    tile = hatched[64:210, 222:418]
    assert {tuple(colour) for colour in tile.reshape(-1, 3)} == {(176, 176, 176), (255, 255, 255)}
    assert not (plain[64:210, 222:418] == 176).all(axis=2).any()
    below = hatched[64 + 150 + 26 :]
    assert (below == 176).all(axis=2).sum() > 100  # its swatch


@pytest.mark.parametrize("ignored", [0.0, 1e-9, 0.3, 1.0])
def test_any_share_of_ignored_pixels_is_drawn(tmp_path, ignored):
    counts = (0, 0, 0) if ignored in (0.0, 1.0) else (3, 2, 1)
    assert sheet(tmp_path / "x.png", [picture(label=-1)], counts=counts, ignored=ignored).any()


def test_many_classes_share_a_legend_that_ends(tmp_path):
    names = tuple(f"a rather long class name {i}" for i in range(171))
    classes = ClassList(names, tuple((name,) for name in names), None)
    found = sheet(tmp_path / "x.png", [picture(label=7)] * 4, classes, tuple(range(171)))
    assert found.shape[0] < 600


def test_more_classes_than_a_byte_holds(tmp_path):
    names = tuple(f"thing {i}" for i in range(1000))
    classes = ClassList(names, tuple((name,) for name in names), None)
    pixels, labels = picture(label=999)
    labels[:30] = -1
    found = sheet(tmp_path / "x.png", [(pixels, labels)], classes, tuple(range(1000)), ignored=0.1)
    assert (found == 176).all(axis=2).any()


def test_names_in_any_script_and_with_control_characters(tmp_path):
    classes = ClassList(("猫 🦇", "[red]\n", "\udcff"), (("a",), ("b",), ("c",)), None)
    named = [("\x1b[31m\u2028\udcff", *picture()), ("x" * 300, *picture())]
    path = write_contact_sheet(
        tmp_path / "x.png", named, classes, shares(1, 1, 1, classes=classes), "T" * 500
    )
    with Image.open(path) as image:
        assert image.width == 850


def test_the_same_sheet_has_the_same_bytes(tmp_path):
    for name in ("x.png", "y.png"):
        sheet(tmp_path / name, [picture(label=i % 3) for i in range(5)], ignored=0.1)
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()
