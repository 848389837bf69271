"""The files of an evaluation: exact in JSON and CSV, a picture that can be read."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from clipseg_cli.data.classes import load_classes
from clipseg_cli.errors import OutputError, ShapeError
from clipseg_cli.ops.metrics import score
from clipseg_cli.outputs import class_rows, draw_confusion, write_scores
from clipseg_cli.outputs._colors import srgb_to_lab
from clipseg_cli.outputs._confusion import _LARGEST, _SMALLEST, _WHITE_FROM, _colorize, _Layout, _Table
from clipseg_cli.types import ClassList

# a: 60 of 80 found; b: missed altogether; c: invented; d: nowhere.
TABLE = np.array([[60, 0, 15, 0, 5], [10, 0, 0, 0, 0], [0] * 5, [0] * 5])
RECORD = {"dataset": "VOC", "split": "val", "method": "maskclip", "model": {"name": "emoji"}, "x": math.nan}


def listed(*names: str) -> ClassList:
    return ClassList(names, tuple((name,) for name in names))


def numbered(count: int) -> ClassList:
    return listed(*(f"thing {i}" for i in range(count)))


def random_table(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.pareto(0.3, (count, count + 1)) % 1e6).astype(np.int64) + 5000 * np.eye(
        count, count + 1, dtype=np.int64
    )


# --- results.json and results.csv ------------------------------------------------------------------------


def test_three_files_and_nothing_else(tmp_path):
    written = write_scores(RECORD, TABLE, listed("a", "b", "c", "d"), tmp_path / "new" / "out")
    assert [path.name for path in written] == ["results.json", "results.csv", "confusion.png"]
    assert sorted(written) == sorted(p for p in tmp_path.rglob("*") if p.is_file())


def test_json_holds_the_record_the_rows_and_the_matrix(tmp_path):
    path = write_scores(RECORD, TABLE, listed("a", "b", "c", "d"), tmp_path)[0]
    text = path.read_text("utf-8")
    data = json.loads(text, parse_constant=pytest.fail)
    assert list(data) == [*RECORD, "classes", "confusion"]
    assert data["confusion"] == TABLE.tolist()
    assert "    [60, 0, 15, 0, 5]," in text.splitlines()
    assert (data["dataset"], data["model"], data["x"]) == ("VOC", {"name": "emoji"}, None)
    assert data["classes"][0] == {
        "id": 0,
        "name": "a",
        "zero_shot": None,
        "iou": 60 / 90,
        "accuracy": 0.75,
        "precision": 60 / 70,
        "f1": 0.8,
        "labelled_pixels": 80,
        "predicted_pixels": 70,
    }
    assert [row["iou"] for row in data["classes"]] == [60 / 90, 0, 0, None]
    assert [row["f1"] for row in data["classes"]] == [0.8, 0, 0, None]
    assert [row["accuracy"] for row in data["classes"]] == [0.75, 0, None, None]


def test_csv_has_one_header_and_one_line_a_class(tmp_path):
    table, classes = random_table(30), numbered(30)
    paths = write_scores({"unseen": ["thing 3"]}, table, classes, tmp_path)
    with paths[1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    data = json.loads(paths[0].read_text("utf-8"))["classes"]
    found = score(torch.tensor(table))
    assert [row["name"] for row in rows] == list(classes.names)
    assert [row["id"] for row in rows] == [str(i) for i in range(30)]
    assert [row["zero_shot"] for row in rows] == ["unseen" if i == 3 else "seen" for i in range(30)]
    for key, values in (("iou", found.iou), ("accuracy", found.accuracy), ("precision", found.precision)):
        assert [float(row[f"{key}_fraction"]) for row in rows] == values.tolist()  # every digit
        assert [row[key] for row in data] == values.tolist()
    assert [int(row["labelled_pixels"]) for row in rows] == table.sum(axis=1).tolist()
    assert [int(row["predicted_pixels"]) for row in rows] == table[:, :-1].sum(axis=0).tolist()


def test_undefined_rates_are_empty_fields(tmp_path):
    path = write_scores({}, TABLE, listed("a", "b", "c", "d"), tmp_path)[1]
    assert path.read_text("utf-8").splitlines()[-2:] == ["2,c,,0.0,,0.0,0.0,0,15", "3,d,,,,,,0,0"]


def test_names_survive_whatever_they_are(tmp_path):
    names = ("a,b", 'say "x"', "猫", "🐱", "line\nbreak", "=1+1", "\ud800", "x" * 3000)
    paths = write_scores({"dataset": "数据", "model": None}, random_table(8), listed(*names), tmp_path)
    with paths[1].open(encoding="utf-8", newline="") as file:
        read = [row["name"] for row in csv.DictReader(file)]
    assert read == [*names[:6], "?", names[7]]
    assert [row["name"] for row in json.loads(paths[0].read_text("utf-8"))["classes"]] == read


def test_counts_beyond_float32_stay_exact(tmp_path):
    many = 10**12 + 1
    table = np.array([[many, 0, 1], [0, 7, 0]])
    data = json.loads(write_scores({}, table, listed("a", "b"), tmp_path)[0].read_text())
    assert data["confusion"][0] == [many, 0, 1]
    assert data["classes"][0]["labelled_pixels"] == many + 1
    assert data["classes"][0]["iou"] == many / (many + 1) < 1


def test_a_matrix_of_another_list_is_an_error(tmp_path):
    with pytest.raises(ShapeError, match="does not fit 3 classes"):
        write_scores({}, TABLE, numbered(3), tmp_path)
    with pytest.raises(ShapeError, match="'zebra' cannot be unseen"):
        class_rows(TABLE, listed("a", "b", "c", "d"), ("zebra",))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_an_error(tmp_path):
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write"):
        write_scores({}, TABLE, listed("a", "b", "c", "d"), tmp_path / "out")


def test_the_matrix_is_not_changed_and_may_be_read_only(tmp_path):
    table = TABLE.copy()
    table.flags.writeable = False
    write_scores({}, table, listed("a", "b", "c", "d"), tmp_path)
    assert np.array_equal(table, TABLE)


# --- confusion.png ---------------------------------------------------------------------------------------


def shown(table: np.ndarray, classes: ClassList) -> tuple[_Table, _Layout]:
    found = _Table.of(table, score(torch.tensor(table)).iou.numpy(), classes)
    return found, _Layout.of(found, "title")


@pytest.mark.parametrize("count", [1, 2, 3, 21, 60, 171, 350])
def test_every_number_of_classes(count):
    classes, table = numbered(count), random_table(count)
    found, layout = shown(table, classes)
    image = draw_confusion(table, classes, "title")
    assert image.size == (layout.width, layout.height)
    assert _SMALLEST <= layout.cell <= _LARGEST
    assert max(image.size) < 6000
    assert np.allclose(found.shares.sum(axis=1), 1)
    pixels = np.asarray(image)
    for row, column in ((0, 0), (len(found.rows) - 1, 0), (0, len(found.columns) - 1)):
        # A corner of the cell, where neither number nor line nor frame is.
        y, x = layout.top + row * layout.cell + 4, layout.left + column * layout.cell + 4
        assert pixels[y, x].tolist() == _colorize(found.shares[row, column]).tolist()


def test_the_picture_of_a_large_benchmark_is_a_small_file(tmp_path):
    classes = load_classes("coco-stuff")
    path = write_scores(RECORD, random_table(len(classes)), classes, tmp_path)[2]
    assert path.stat().st_size < 1_000_000
    with Image.open(path) as image:
        image.load()


def test_no_class_gets_a_column_only_if_it_has_pixels():
    table = TABLE.copy()
    assert shown(table, numbered(4))[0].columns[4:] == ("no class",)
    table[:, -1] = 0
    assert shown(table, numbered(4))[0].columns[4:] == ()


def test_classes_nobody_labelled_are_grey_and_their_iou_is_said():
    found, layout = shown(TABLE, numbered(4))
    assert found.iou == ("66.7", "0.0", "0.0", "–")
    assert np.isnan(found.shares).all(axis=1).tolist() == [False, False, True, True]
    pixels = np.asarray(draw_confusion(TABLE, numbered(4), "title"))
    cell = pixels[layout.top + 2 * layout.cell + 9, layout.left + 9]
    assert cell.tolist() == [232, 232, 232]


def test_of_too_many_classes_the_most_frequent_are_shown():
    table = random_table(400)
    table[17] *= 1000
    found, _ = shown(table, numbered(400))
    assert len(found.rows) == 300
    assert "thing 17" in found.rows
    assert found.columns[300:] == ("other classes", "no class")
    order = [int(name.split()[1]) for name in found.rows]
    assert order == sorted(order)
    assert table[order].sum(axis=1).min() >= np.delete(table, order, axis=0).sum(axis=1).max()


def test_an_empty_matrix_can_be_drawn(tmp_path):
    assert write_scores({}, np.zeros((3, 4), np.int64), numbered(3), tmp_path)


def test_a_long_title_is_cut_and_a_short_matrix_widened():
    short = draw_confusion(TABLE, numbered(4), "x")
    long = draw_confusion(TABLE, numbered(4), "a very long title " * 50)
    assert short.width < long.width < 2000


def test_the_scale_is_even_and_lighter_is_always_less():
    lab = srgb_to_lab(_colorize(np.linspace(0, 1, 33) ** 2))
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=-1)
    assert (np.diff(lab[:, 0]) < 0).all()
    assert steps.max() < 1.5 * steps.min()
    assert _colorize(np.zeros(1)).tolist() == [[255, 255, 255]]


def test_numbers_can_be_read_on_their_cells():
    """WCAG contrast of large text: 3 to 1, for every share and the ink that is chosen for it."""

    def luminance(rgb: np.ndarray) -> np.ndarray:
        v = rgb / 255
        return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    shares = np.linspace(0, 1, 101)
    paper = luminance(_colorize(shares))
    ink = np.where(shares > _WHITE_FROM, 1.0, luminance(np.array([0x1B] * 3)))
    light, dark = np.maximum(ink, paper), np.minimum(ink, paper)
    assert ((light + 0.05) / (dark + 0.05)).min() > 3
