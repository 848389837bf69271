"""Sheets of pictures: everything in its place whatever its size, labels in their colours, a legend of what is seen."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clipseg_cli.errors import OutputError, ShapeError
from clipseg_cli.outputs import (
    _sheet,
    class_colors,
    thumbnail,
    voc_palette,
    write_contact_sheet,
    write_label_sheet,
    write_sheet,
)
from clipseg_cli.outputs._sheet import Legend
from clipseg_cli.types import ClassList, ClassShare

CLASSES = ClassList(("background", "cat", "dog"), (("sky",), ("cat",), ("dog",)), 0)
COLORS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
BLUE = (10, 20, 250)
STRIPES = {(176, 176, 176), (255, 255, 255)}


def solid(color, height=120, width=160):
    return np.full((height, width, 3), color, np.uint8)


def pixels_of(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def boxes_of(pixels, color):
    """Left, top, right and bottom of each stretch of columns that has a colour."""
    found = (pixels == color).all(axis=2)
    columns = np.nonzero(found.any(axis=0))[0]
    boxes = []
    for part in np.split(columns, np.nonzero(np.diff(columns) > 1)[0] + 1) if len(columns) else ():
        rows = np.nonzero(found[:, part].any(axis=1))[0]
        boxes.append((int(part[0]), int(rows[0]), int(part[-1]) + 1, int(rows[-1]) + 1))
    return boxes


def box_of(pixels, color):
    (box,) = boxes_of(pixels, color)
    return box


def inked(pixels, other):
    """The box of what differs."""
    rows, columns = np.nonzero((pixels != other).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def numbered(count, name="thing"):
    names = tuple(f"{name} {i}" for i in range(count))
    return ClassList(names, tuple((name,) for name in names), None)


def shares(*pixels, classes=CLASSES):
    total = max(1, sum(pixels))
    return [
        ClassShare(i, name, n, n / total, 0.5)
        for i, (name, n) in enumerate(zip(classes.names, pixels, strict=True))
    ]


# --- the sheet ---------------------------------------------------------------------------------------------


def test_pictures_stand_at_the_foot_of_their_row_in_the_middle_of_their_column(tmp_path):
    rows = [[solid(COLORS[0], 200, 60), solid(COLORS[1], 10, 90)], [], [solid(c) for c in COLORS[2:4]]]
    sheet = pixels_of(write_sheet(tmp_path / "x.png", rows, names=["a", "b", "c"], columns=["1", "2"]))
    tall, wide, below, last = (box_of(sheet, color) for color in COLORS)
    assert (tall[2] - tall[0], tall[3] - tall[1]) == (60, 200)
    assert (below[2] - below[0], below[3] - below[1]) == (160, 120)
    assert tall[3] == wide[3] < below[1] == last[1]
    assert below[2] < last[0]
    assert tall[0] + tall[2] == below[0] + below[2] and wide[0] + wide[2] == last[0] + last[2]


def test_words_stand_above_beside_and_below_their_pictures(tmp_path):
    def sheet(row, column, caption, title):
        words = {"names": [row], "columns": [column, "b"], "captions": [[caption, "c"]], "title": title}
        return pixels_of(write_sheet(tmp_path / "x.png", [[solid(c) for c in COLORS[:2]]], **words))

    plain = sheet("no", "o", "o", "o")
    left, top, right, bottom = box_of(plain, COLORS[0])
    heading, column = inked(plain, sheet("no", "o", "o", "y")), inked(plain, sheet("no", "x", "o", "o"))
    name, caption = inked(plain, sheet("on", "o", "o", "o")), inked(plain, sheet("no", "o", "x", "o"))
    assert heading[3] < column[1] < column[3] < top
    assert name[2] < left
    assert top < name[1] < name[3] < bottom < caption[1]
    for box in (column, caption):
        assert abs(box[0] + box[2] - left - right) <= 4


def test_long_and_foreign_words_stay_in_their_place(tmp_path):
    rows = [[solid(COLORS[0]), solid(COLORS[1])]]
    odd = {
        "names": ["云" * 5 + "x" * 200],
        "columns": ["y" * 300, "\u200d"],
        "captions": [["z" * 200, "\x1b[31m\u2028\udcff"]],
        "title": "T" * 500,
    }
    sheet = pixels_of(write_sheet(tmp_path / "x.png", rows, **odd))
    first, second = box_of(sheet, COLORS[0]), box_of(sheet, COLORS[1])
    assert first[2] < second[0]
    assert sheet.shape[1] == 850
    assert (sheet[:, -10:] == 255).all() and (sheet[-3:] == 255).all()
    for box in (first, second):
        assert (sheet[box[1] : box[3], box[0] : box[2]] == sheet[box[1], box[0]]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (900, 1), (300, 400), (4000, 3000)])
def test_a_thumbnail_is_as_large_as_fits_and_is_shown_as_it_is(tmp_path, size):
    small = thumbnail(solid(COLORS[0], *size))
    height, width = small.shape[:2]
    assert (width == 160 or height == 200) and width <= 160 and height <= 200
    assert abs(height / width - size[0] / size[1]) <= 0.02 * size[0] / size[1] or min(height, width) == 1
    assert np.array_equal(thumbnail(small), small)
    left, top, right, bottom = box_of(pixels_of(write_sheet(tmp_path / "x.png", [[small]])), COLORS[0])
    assert (bottom - top, right - left) == (height, width)


def test_a_sheet_of_nothing_is_a_picture_and_one_that_cannot_be_written_is_said(tmp_path):
    assert pixels_of(write_sheet(tmp_path / "x.png", [])).min() == 255
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_sheet(tmp_path / "file" / "x.png", [])


# --- the legend --------------------------------------------------------------------------------------------


def legend_of(given, colors=None):
    legend = Legend(given, class_colors(len(given), None) if colors is None else colors, 16)
    assert legend.draw(3).size
    return [(name.text, share.text) for _, name, share in legend.entries]


def test_the_legend_lists_what_has_pixels_from_the_largest_down():
    assert legend_of(shares(30, 0, 70)) == [("dog", "70.0%"), ("background", "30.0%")]
    assert Legend(shares(0, 0, 0), class_colors(3), 16).entries == []


def test_one_pixel_is_all_of_a_picture_of_one_pixel_and_nothing_in_a_large_one():
    assert legend_of(shares(0, 1, 0)) == [("cat", "100.0%")]
    assert legend_of(shares(1, 1, 1)) == [("background", "33.3%"), ("cat", "33.3%"), ("dog", "33.3%")]
    specks = shares(100_000, 50_000, *[1] * 10, classes=numbered(12))
    assert legend_of(specks) == [("thing 0", "66.7%"), ("thing 1", "33.3%"), ("and 10 more", "<0.1%")]
    one = shares(100_000, 50_000, 1, classes=numbered(3))
    assert legend_of(one)[2:] == [("thing 2", "<0.1%")]  # takes no more room than "and 1 more"


@pytest.mark.parametrize(("count", "last"), [(24, "thing 23"), (25, "and 2 more"), (171, "and 148 more")])
def test_a_legend_of_many_ends(count, last):
    entries = legend_of(shares(*[1] * count, classes=numbered(count)))
    assert len(entries) == 24
    assert entries[-1][0] == last


def test_columns_are_read_downwards_and_swatches_have_their_colours():
    legend = Legend(shares(40, 30, 20), np.array(COLORS[:3], np.uint8), 20)
    panel = legend.draw(2)
    boxes = [box_of(panel, color) for color in COLORS[:3]]
    assert boxes[0][0] == boxes[1][0] < boxes[2][0]
    assert boxes[0][1] == boxes[2][1] < boxes[1][1]
    assert panel.shape[1] < legend.draw(3).shape[1] == legend.draw(9).shape[1]


# --- pictures beside their labels --------------------------------------------------------------------------


def uniform_image(height=60, width=80, label=1, color=(255, 255, 255)):
    return solid(color, height, width), np.full((height, width), label, np.int32)


def contact(path, images, classes=CLASSES, counts=(1, 1, 1), title="title", **options):
    named = [(f"name {i}", *entry) for i, entry in enumerate(images)]
    return pixels_of(
        write_contact_sheet(path, named, classes, shares(*counts, classes=classes), title, **options)
    )


@pytest.mark.parametrize("count", [0, 1, 4, 5, 11])
def test_four_pairs_stand_in_a_row(tmp_path, count):
    found = contact(tmp_path / "x.png", [uniform_image(color=BLUE)] * count)
    rows = np.nonzero((found == BLUE).all(axis=2).any(axis=1))[0]
    assert (len(rows) / 150, len(boxes_of(found, BLUE))) == (-(-count // 4), min(4, count))
    assert (found[-5:] == 255).all()  # nothing is cut off below


def test_a_picture_stands_left_of_its_labels(tmp_path):
    pixels, labels = uniform_image(color=BLUE)
    labels[:, 40:] = 0
    found = contact(tmp_path / "x.png", [(pixels, labels)])
    left, top, right, _ = box_of(found, BLUE)
    assert right - left == 200
    cat, background = found[top + 75, right + 50].astype(int), found[top + 75, right + 150].astype(int)
    color = class_colors(3, 0)[1].astype(int)
    assert np.abs(cat - color).sum() < np.abs(BLUE - color).sum() / 2
    assert np.abs(background - BLUE).sum() < np.abs(cat - BLUE).sum() / 2


def test_what_has_no_label_is_striped_and_in_the_legend(tmp_path):
    found = contact(tmp_path / "x.png", [uniform_image(label=-1, color=BLUE)], ignored=0.5)
    _, top, right, bottom = box_of(found, BLUE)
    assert {tuple(color) for color in found[top:bottom, right : right + 200].reshape(-1, 3)} == STRIPES
    assert (found[bottom + 26 :] == 176).all(axis=2).sum() > 100  # its swatch
    plain = contact(tmp_path / "y.png", [uniform_image(label=1, color=BLUE)])
    assert (plain == 176).all(axis=2).sum() < 50  # in the soft edges of letters


@pytest.mark.parametrize(("ignored", "share"), [(1e-9, "<0.1%"), (0.3, "30.0%"), (1.0, "100.0%")])
def test_any_share_of_ignored_pixels_is_in_the_legend(tmp_path, monkeypatch, ignored, share):
    seen = []
    monkeypatch.setattr(_sheet, "Legend", lambda *given: seen.append(given) or Legend(*given))
    contact(
        tmp_path / "x.png",
        [uniform_image(label=-1)],
        counts=(0, 0, 0) if ignored == 1 else (3, 2, 1),
        ignored=ignored,
    )
    entries = {name.text: part.text for _, name, part in Legend(*seen[0]).entries}
    assert entries["(ignored)"] == share
    assert len(entries) == (1 if ignored == 1 else 4)


def labelled(target=None, truth=None, prediction=1, size=(60, 80)):
    """A blue picture; a number stands for a map with one label."""
    maps = [None if v is None else np.full(size, v, np.int32) for v in (target, prediction, truth)]
    return ("name", solid(BLUE, *size), maps)


def sheet(path, rows, classes=CLASSES):
    return pixels_of(write_label_sheet(rows, ("taught", "prediction", "ground truth"), classes, path))


def cells(found, count):
    """The pictures of the first row, from left to right."""
    left, top, right, bottom = box_of(found, BLUE)
    return [found[top:bottom, left + 166 * i : right + 166 * i] for i in range(count)]


def test_columns_are_image_taught_prediction_truth(tmp_path):
    row = labelled(0, 1, 2)
    row[2][2][:, 40:] = 0
    image, taught, prediction, truth = cells(sheet(tmp_path / "x.png", [row]), 4)
    for cell, color in zip(
        (image, taught, prediction, truth), [BLUE, *voc_palette()[[0, 2, 1]]], strict=True
    ):
        assert (cell[:, :80] == color).all()
    assert (truth[:, 80:] == voc_palette()[0]).all()


def test_a_column_without_labels_is_left_out_and_what_one_row_lacks_stays_white(tmp_path):
    full = sheet(tmp_path / "x.png", [labelled(0, 1)])
    for target, truth in ((0, None), (None, 1), (None, None)):
        found = sheet(tmp_path / "y.png", [labelled(target, truth)])
        assert found.shape[1] == full.shape[1] - 166 * [target, truth].count(None)
        assert (cells(found, 2)[1] == voc_palette()[1 if target is None else 0]).all()
    taught = cells(sheet(tmp_path / "x.png", [labelled(None, 1), labelled(0, None)]), 2)[1]
    assert (taught[:110] == 255).all() and (taught[-110:] == voc_palette()[0]).all()


@pytest.mark.parametrize("label", [-1, -7, 3, 255, 65535])
def test_no_label_is_striped(tmp_path, label):
    taught = cells(sheet(tmp_path / "x.png", [labelled(label)]), 2)[1]
    assert {tuple(color) for color in taught.reshape(-1, 3).tolist()} == STRIPES


def test_the_legend_has_the_classes_that_occur_anywhere(tmp_path):
    """Swatches below the pictures: of the class that was only taught, of the one only predicted, not of the third."""
    found = sheet(tmp_path / "x.png", [labelled(target=2, prediction=1)])
    below = found[box_of(found, BLUE)[3] + 6 :]
    counts = [(below == color).all(axis=2).sum() for color in voc_palette()[:3]]
    assert min(counts[1], counts[2]) > 100
    assert counts[0] == 0  # black is that of no letter
    assert (below == 176).all(axis=2).sum() < 50  # some are in the soft edges of letters


@pytest.mark.parametrize("total", [1, 255, 256, 1000])
def test_any_number_of_classes(tmp_path, total):
    row = labelled(target=-1, prediction=total - 1)
    row[2][1][:30] = np.arange(80) % total
    found = sheet(tmp_path / "x.png", [row], numbered(total, "a rather long name of thing"))
    color = voc_palette()[total - 1] if total <= 255 else class_colors(total)[-1]
    assert (cells(found, 3)[2][60:] == color).all()
    assert found.shape[0] < 900


def test_labels_of_another_size_are_refused(tmp_path):
    row = ("name", solid(BLUE, 60, 80), [np.zeros((8, 10), np.int32), None, None])
    with pytest.raises(ShapeError, match=r"name: labels of \(8, 10\) for an image of \(60, 80\)"):
        sheet(tmp_path / "x.png", [row])
    assert not list(tmp_path.iterdir())


def test_nobody_s_arrays_change_and_equal_sheets_have_equal_bytes(tmp_path):
    row, pair = labelled(-1, 255), uniform_image(label=-1)
    before = [np.copy(part) for part in (row[1], *row[2], *pair)]
    for name in ("x", "y"):
        sheet(tmp_path / f"{name}.png", [row])
        contact(tmp_path / f"{name}2.png", [pair] * 5, ignored=0.1)
    assert all(np.array_equal(a, b) for a, b in zip(before, (row[1], *row[2], *pair), strict=True))
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()
    assert (tmp_path / "x2.png").read_bytes() == (tmp_path / "y2.png").read_bytes()
