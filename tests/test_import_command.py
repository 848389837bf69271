"""`clipseg import` from names to marks: what is taken, who answers for it, and the way back to the very bytes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pytest
from annotated import samples, write
from corrected import by_name, contents, corrections, good_corrections, labelled_run, maps  # noqa: F401
from PIL import Image

from clipseg_cli.runs.human import human_labels, read_human
from clipseg_cli.runs.records import file_fingerprint
from clipseg_cli.utils.locks import file_lock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def marks(tmp_path: Path, more: Mapping[str, object] = MappingProxyType({}), **marked: str) -> Path:
    path = tmp_path / "marks.json"
    data = {"format": "clipseg-review", "version": 1, "run": "run", "marks": marked, **more}
    path.write_text(json.dumps(data))
    return path


def test_who_when_and_from_what(cli, run, good):
    done = cli("import", run, good, "--by", "Anna Á", "--hold-out")
    assert done.code == 0, done.err
    assert "5 corrected, by Anna Á, 5 held out of training" in done.err
    assert "pixels changed" in done.out
    records = read_human(run)
    assert sorted(records) == sorted(by_name(samples()))
    for name, record in records.items():
        assert (record.by, record.source, record.format, record.kind) == (
            "Anna Á",
            str(good),
            "coco",
            "corrected",
        )
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record.when) and record.hold_out
        assert record.changed == (by_name(corrections())[name] != by_name(samples())[name]).sum()
    with Image.open(run / "one.png") as image:
        facts = json.loads(image.info["clipseg"])
    assert facts["made_by"] == "Anna Á, from coco.json" and facts["classes"][1] == "cat"
    assert facts["image"] == "one"


def test_undo_gives_back_the_very_bytes_step_by_step(cli, run, good, tmp_path):
    first = contents(run)
    assert cli("import", run, good, "--by", "a").code == 0
    second = contents(run)
    other = write("npz", corrections(seed=2), tmp_path / "other")
    assert cli("import", run, *other[:2], "--by", "b").code == 0
    assert read_human(run)["one"].by == "b" and read_human(run)["sub/full"].by == "a"
    done = cli("import", run, "--undo")
    assert done.code == 0 and "took back the import by b" in done.err and "2 labels" in done.err
    assert contents(run) == second
    done = cli("import", run, "--undo", "--json")
    assert done.code == 0 and json.loads(done.out)["undone"]["by"] == "a"
    assert contents(run) == first
    done = cli("import", run, "--undo")
    assert done.code == 1 and "no import to take back" in done.err


def test_undo_loses_no_later_work(cli, run, good):
    assert cli("import", run, good).code == 0
    shutil.copy(run / "pixel.png", run / "one.png")
    before = contents(run)
    done = cli("import", run, "--undo")
    assert done.code == 1 and "one.png was changed since it was imported" in done.err
    assert contents(run) == before
    assert "one" in read_human(run) and "one" not in human_labels(run)


def test_only_what_was_changed_is_taken_unless_all_was_looked_at(cli, run, tmp_path):
    results = [corrections()[0], *samples()[1:]]
    (path,) = write("coco", results, tmp_path / "out")
    done = cli("import", run, path)
    assert done.code == 0 and "1 corrected, 4 unchanged" in done.err
    assert list(read_human(run)) == ["one"]
    done = cli("import", run, path, "--checked", "--json")
    assert done.code == 0, done.err
    assert {row["outcome"] for row in json.loads(done.out)["images"]} == {"checked"}
    kinds = {name: record.kind for name, record in read_human(run).items()}
    assert len(kinds) == 5 and kinds.pop("one") == "corrected" and set(kinds.values()) == {"checked"}


def test_marks_of_a_review_page_check_labels_and_change_none(cli, run, tmp_path):
    before = maps(run)
    path = marks(tmp_path, **{"one": "good", "pixel": "fix", "sub/full": "skip", "sub/empty.v2": "good"})
    done = cli("import", run, path, "--by", "anna", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["imported"] == 2 and "1 to fix and 1 to skip" in done.err
    assert {n: (r.kind, r.machine) for n, r in read_human(run).items()} == {
        "one": ("checked", 0),
        "sub/empty.v2": ("checked", 0),
    }
    assert all(np.array_equal(before[name], labels) for name, labels in maps(run).items())
    assert cli("import", run, "--undo").code == 0 and not (run / "human.jsonl").exists()
    assert not (run / ".human").exists()


def test_a_mark_is_about_the_label_that_was_looked_at(cli, run, tmp_path):
    labels = {name: file_fingerprint(run / f"{name}.png") for name in ("one", "pixel")}
    path = marks(tmp_path, {"labels": labels}, one="good", pixel="good")
    correction = write("npz", corrections()[:1], tmp_path / "new")[0]
    assert cli("import", run, correction, "--by", "anna").code == 0
    assert "one" in human_labels(run)
    assert cli("import", run, path, "--by", "ben").code == 0
    found = human_labels(run)
    assert (found["one"].by, found["one"].kind) == ("anna", "corrected")
    assert (found["pixel"].by, found["pixel"].kind) == ("ben", "checked")


def test_whoever_marked_another_label_is_told(cli, run, tmp_path):
    path = marks(tmp_path, {"labels": {"one": "0-0"}}, one="good")
    before = contents(run)
    done = cli("import", run, path, "--json")
    assert done.code == 0 and "Note: 1 image not marked: the labels are others than those" in done.err
    assert json.loads(done.out)["images"][0]["outcome"] == "changed since"
    assert contents(run) == before


@pytest.mark.parametrize("labels", [[], {"one": 3}, "x"])
def test_labels_of_marks_are_texts(cli, run, tmp_path, labels):
    done = cli("import", run, marks(tmp_path, {"labels": labels}, one="good"))
    assert done.code == 1 and "'labels' is no object of texts" in done.err


def test_a_held_out_image_stays_so(cli, run, good, tmp_path):
    assert cli("import", run, marks(tmp_path, one="good"), "--hold-out").code == 0
    assert cli("import", run, good).code == 0
    held = {name for name, record in read_human(run).items() if record.hold_out}
    assert held == {"one"}


def test_an_image_without_a_region_is_left_as_it_is_unless_asked(cli, run, tmp_path):
    path = tmp_path / "one.json"
    data = {"version": "5.5.0", "shapes": [], "imagePath": "one.jpg", "imageHeight": 60, "imageWidth": 80}
    path.write_text(json.dumps(data))
    before = contents(run)
    done = cli("import", run, path)
    assert done.code == 0 and "1 left out" in done.err and "--empty" in done.err
    assert contents(run) == before
    assert cli("import", run, path, "--empty").code == 0
    assert not maps(run)["one"].any()


def test_files_of_several_formats_at_once_and_one_image_twice(cli, run, tmp_path):
    labelme = write("labelme", corrections()[:1], tmp_path / "out")
    cvat = write("cvat", corrections()[1:], tmp_path / "out")
    done = cli("import", run, *labelme, *cvat, "--json")
    assert done.code == 0, done.err
    assert {row["format"] for row in json.loads(done.out)["images"]} == {"labelme", "cvat"}
    assert all(np.array_equal(maps(run)[n], labels) for n, labels in by_name(corrections()).items())
    before = contents(run)
    twice = write("npz", corrections(seed=3)[:1], tmp_path / "npz")
    done = cli("import", run, *labelme, *twice)
    assert done.code == 1 and "stands in" in done.err and contents(run) == before


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ((), 2, "Missing argument 'FILES'"),
        (("{good}", "--undo"), 2, "--undo takes the last import back"),
        (("nowhere.json",), 1, "nowhere.json: no such file"),
        (("{good}", "--format", "cocoo"), 2, "did you mean 'coco'"),
        (("{run}/classes.json",), 1, "does not show its format"),
        (("{good}", "--format", "labelme"), 1, "'shapes' is not a list"),
    ],
)
def test_usage(args, code, said, cli, run, good):
    args = [arg.format(good=good, run=run) for arg in args]
    before = contents(run)
    done = cli("import", run, *args)
    assert done.code == code and said in " ".join(done.err.split()), done.err
    assert contents(run) == before and not done.stdout


def test_no_run_no_import(cli, tmp_path, good):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        done = cli("import", tmp_path / folder, good)
        assert done.code == 1 and folder in done.err
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_folder_in_use_is_left_alone(cli, run, good):
    with file_lock(run / ".lock"):
        done = cli("import", run, good)
    assert done.code == 1 and "in use by process" in done.err


def test_damaged_marks_are_no_marks_to_guess(cli, run, good):
    assert cli("import", run, good).code == 0
    path = run / "human.jsonl"
    path.write_text(path.read_text()[:-20])
    done = cli("import", run, "--undo")
    assert done.code == 1 and "human.jsonl:5 is damaged" in done.err


def test_a_human_is_sure(cli, run, good, tmp_path):
    write("confidence", samples(), run)
    assert cli("import", run, good).code == 0
    assert cli("convert", run, "-f", "npz", "-o", tmp_path / "npz").code == 0
    with np.load(tmp_path / "npz" / "one.npz") as data:
        assert (data["confidence"] == 1).all()
    assert cli("import", run, "--undo").code == 0
    assert cli("convert", run, "-f", "npz", "-o", tmp_path / "npz").code == 0
    with np.load(tmp_path / "npz" / "one.npz") as data:
        assert (data["confidence"] < 1).any()


def test_in_a_process_of_its_own_without_torch(run, good, process_env):
    code = (
        "import sys\nfrom clipseg_cli.cli.main import main\n"
        "try: main(sys.argv[1:])\nfinally: assert 'torch' not in sys.modules, 'torch was loaded'"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "import", str(run), str(good), "--by", "anna"],
        env=process_env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=os.fspath(run.parent),
    )
    assert done.returncode == 0, done.stderr
    assert "5 corrected, by anna" in done.stderr and time.monotonic() - began < 60
