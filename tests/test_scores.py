"""The files of an evaluation: exact in JSON and CSV."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch

from clipseg_cli.errors import OutputError, ShapeError
from clipseg_cli.ops.metrics import score
from clipseg_cli.outputs import class_rows, write_scores
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


@pytest.mark.usefixtures("drawn_charts")
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


@pytest.mark.usefixtures("drawn_charts")
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
