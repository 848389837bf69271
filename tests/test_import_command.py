"""`clipseg import` from names to marks: what is taken, who answers for it, and the way back to the very bytes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pytest
from annotated import result_of, samples, shapes, write
from corrected import by_name, contents, corrections, labelled, maps
from PIL import Image

from clipseg_cli.data.annotations import ImageNames
from clipseg_cli.errors import AnnotationError
from clipseg_cli.runs import human_changes
from clipseg_cli.runs.human import human_labels, read_human
from clipseg_cli.runs.human_changes import complete_changes
from clipseg_cli.runs.records import file_fingerprint
from clipseg_cli.utils.locks import file_lock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture
def run(tmp_path) -> Path:
    return labelled(tmp_path / "run")


@pytest.fixture
def good(tmp_path) -> Path:
    """Corrections of all five images."""
    return write("coco", corrections(), tmp_path / "good")[0]


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


# Cut off in the middle.


class Cut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("undo", [False, True])
@pytest.mark.parametrize("at", [0, 2, 4, 7, 11, 12, 13, 15, 17, 18])
def test_cut_off_anywhere_it_is_old_or_new(at, undo, run, good, cli, monkeypatch):
    """Every write, move and removal of an import fails in turn, as if the process had ended there."""
    if undo:
        assert cli("import", run, good, "--by", "a").code == 0
    before = contents(run)
    calls = []

    def counted(function):
        def wrapped(*args, **options):
            if len(calls) == at:
                raise Cut
            calls.append(args)
            return function(*args, **options)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(human_changes, "write_bytes", counted(human_changes.write_bytes))
        patch.setattr(human_changes.Change, "discard", lambda self: None)  # a killed process tidies nothing
        args = ["--undo"] if undo else [str(good), "--by", "a"]
        try:
            done = cli("import", run, *args)
        except Cut:
            done = None
    complete_changes(run)
    after = contents(run)
    labels = {name: data for name, data in after.items() if not name.startswith(".human")}
    was = {name: data for name, data in before.items() if not name.startswith(".human")}
    if labels != was:  # then all of it holds
        want = by_name(samples() if undo else corrections())
        assert all(np.array_equal(maps(run)[name], own) for name, own in want.items())
        assert bool(human_labels(run)) is not undo
    else:
        assert done is None, "it said that it was done"
    # And whatever it is, the next import goes well.
    assert cli("import", run, good, "--by", "b", "--checked").code == 0
    assert all(np.array_equal(maps(run)[name], own) for name, own in by_name(corrections()).items())
    assert not list(run.rglob("*.part"))


def test_whoever_reads_next_brings_it_to_its_end(run, good, cli, monkeypatch, tmp_path):
    moved = []

    def dying(path, data):
        if ".human" not in str(path):
            moved.append(path)
        if len(moved) == 3:
            raise Cut
        return write_bytes(path, data)

    write_bytes = human_changes.write_bytes
    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(human_changes, "write_bytes", dying)
        cli("import", run, good)
    assert cli("convert", run, "-f", "npz", "-o", tmp_path / "npz").code == 0
    for name, labels in by_name(corrections()).items():
        with np.load(tmp_path / "npz" / f"{name}.npz") as data:
            assert np.array_equal(data["labels"], labels), name


def test_killed_it_is_old_or_new(run, good, process_env):
    """A real process, killed at the first label that it moves."""
    code = (
        "import os, signal, sys\n"
        "from clipseg_cli.runs import human_changes as h\n"
        "write = h.write_bytes\n"
        "def dying(path, data):\n"
        "    if '.human' not in str(path): os.kill(os.getpid(), signal.SIGKILL) if moved else moved.append(1)\n"
        "    return write(path, data)\n"
        "moved = []\n"
        "h.write_bytes = dying\n"
        "from clipseg_cli.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "import", str(run), str(good)], env=process_env, check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    half = maps(run)
    same = [np.array_equal(half[name], labels) for name, labels in by_name(corrections()).items()]
    assert any(same) and not all(same)  # so that there is something to bring to its end
    complete_changes(run)
    assert all(np.array_equal(maps(run)[name], labels) for name, labels in by_name(corrections()).items())
    assert len(human_labels(run)) == 5


def test_interrupted_while_reading_nothing_is_left(run, good, cli, monkeypatch):
    before = contents(run)

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(human_changes.Change, "replace", stop)
    done = cli("import", run, good)
    assert done.code == 130 and contents(run) == before


# Which image is meant.


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("a/x.jpg", "a/x"),
        ("photos/2020/a/x.jpg", "a/x"),
        ("C:\\photos\\a\\x.jpg", "a/x"),
        ("y.png", "b/y"),
        ("/data/x.v2.jpg", "x.v2"),
        ("x.v2", "x.v2"),
        ("b/z.jpg", "b/z.jpg"),
        ("../../a/x.json", "a/x"),
    ],
)
def test_names_are_found(said, found):
    from pathlib import PurePosixPath

    names = [PurePosixPath(n) for n in ("a/x", "b/x", "b/y", "x.v2", "b/z.jpg")]
    assert str(ImageNames(names).find(said)) == found


@pytest.mark.parametrize(
    ("said", "why"), [("x.jpg", "may be a/x, b/x"), ("c/x.jpg", "is no image"), ("", "is no image")]
)
def test_names_that_are_not_sure_are_refused(said, why):
    from pathlib import PurePosixPath

    with pytest.raises(AnnotationError, match=why):
        ImageNames([PurePosixPath(n) for n in ("a/x", "b/x")]).find(said)


# What other tools write.


def one(tmp_path: Path, labels: np.ndarray | None = None) -> Path:
    """A folder with one label map, of the image one.jpg."""
    return labelled(tmp_path / "one", [result_of(shapes() * 0 if labels is None else labels, "one.jpg")])


def test_x_anylabeling(cli, tmp_path):
    run = one(tmp_path)
    shapes_ = [
        {"label": "cat", "shape_type": "rectangle", "points": [[2, 3], [12, 3], [12, 13], [2, 13]]},
        {"label": "red car", "shape_type": "rotation", "points": [[30, 5], [35, 10], [30, 15], [25, 10]]},
        {"label": "cat", "shape_type": "circle", "points": [[60, 30], [60, 40]]},
        {"label": "red car", "shape_type": "polygon", "points": [[5, 40], [25, 40], [25, 50], [5, 50]]},
        {"label": "cat", "points": [[40, 50], [50, 59.9]], "shape_type": "rectangle"},
    ]
    extra = {"score": None, "difficult": False, "attributes": {}, "kie_linking": [], "group_id": None}
    data = {
        "version": "3.2.1",
        "flags": {},
        "checked": True,
        "shapes": [{**extra, **s} for s in shapes_],
        "imagePath": "one.jpg",
        "imageData": None,
        "imageHeight": 60,
        "imageWidth": 80,
        "description": "",
    }
    path = tmp_path / "one.json"
    path.write_text(json.dumps(data))
    done = cli("import", run, path)
    assert done.code == 0, done.err
    found = maps(run)["one"]
    assert (
        (found[3:13, 2:12] == 1).all()
        and (found[40:50, 5:25] == 2).all()
        and (found[50:60, 40:50] == 1).all()
    )
    assert abs((found[18:42, 48:72] == 1).sum() - np.pi * 100) < 8
    assert abs((found[:20, 20:40] == 2).sum() - 50) <= 5


def task(annotations, predictions=(), image="/data/upload/7/0a1b2c3d-one.jpg"):
    return {"id": 5, "data": {"image": image}, "annotations": annotations, "predictions": list(predictions)}


def region(kind, value, label="cat"):
    return {
        "id": "r",
        "type": kind,
        "from_name": "tag",
        "to_name": "image",
        "original_width": 80,
        "original_height": 60,
        "image_rotation": 0,
        "value": {**value, kind: [label]},
    }


def test_label_studio_exports(cli, tmp_path):
    run = one(tmp_path)
    polygon = region("polygonlabels", {"points": [[0, 0], [25, 0], [25, 50], [0, 50]]})
    box = region("rectanglelabels", {"x": 50, "y": 50, "width": 25, "height": 25, "rotation": 0}, "red car")
    choice = {"id": "c", "type": "choices", "value": {"choices": ["good"]}}
    done_ = {"id": 1, "was_cancelled": False, "result": [polygon, box, choice]}
    cancelled = {"id": 2, "was_cancelled": True, "result": []}
    untouched = task([], [{"result": []}], image="s3://bucket/photos/other.jpg")
    path = tmp_path / "project.json"
    path.write_text(json.dumps([task([done_, cancelled]), untouched]))
    done = cli("import", run, path, "--json")
    assert done.code == 0, done.err
    assert "1 of 2 tasks have no annotation" in done.err
    want = np.zeros((60, 80), np.uint8)
    want[:30, :20], want[30:45, 40:60] = 1, 2
    assert np.array_equal(maps(run)["one"], want)
    # Submitted again without a change: somebody has looked at it.
    document = json.loads(cli("import", run, path, "--json").out)
    assert document["images"][0]["outcome"] == "checked"


def test_label_studio_json_min(cli, tmp_path):
    run = one(tmp_path)
    ellipse = {"x": 50, "y": 50, "radiusX": 12.5, "radiusY": 16.667, "rotation": 0, "ellipselabels": ["cat"]}
    row = {"image": "/data/local-files/?d=in/one.jpg", "id": 1, "tag": [{**ellipse, "original_width": 80,
           "original_height": 60, "image_rotation": 0}]}  # fmt: skip
    path = tmp_path / "min.json"
    path.write_text(json.dumps([row]))
    done = cli("import", run, path)
    assert done.code == 0, done.err
    assert abs((maps(run)["one"] == 1).sum() - np.pi * 100) < 8


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


def skipped(**more):
    """A task that an annotator has skipped, as Label Studio 1.23 exports it: predictions by their numbers."""
    annotation = {"id": 3, "completed_by": 1, "result": [], "was_cancelled": True, "ground_truth": False}
    found = {"id": 3, "annotations": [annotation], "file_upload": "cc85e605-label_studio.json", "drafts": [],
             "predictions": [3], "data": {"image": "/data/local-files/?d=photos/other.jpg"}, "meta": {}}  # fmt: skip
    return found | more


def test_label_studio_exports_of_a_running_one(cli, tmp_path):
    run = one(tmp_path)
    polygon = region("polygonlabels", {"points": [[0, 0], [25, 0], [25, 50], [0, 50]]})
    done_ = {"id": 1, "completed_by": 1, "result": [polygon], "was_cancelled": False, "lead_time": 3.1}
    looked_at = skipped(id=1, annotations=[done_], data={"image": "/data/local-files/?d=photos/one.jpg"})
    path = tmp_path / "project.json"
    path.write_text(json.dumps([looked_at, skipped(), skipped(id=4, annotations=[])]))
    done = cli("import", run, path)
    assert done.code == 0, done.err
    assert "2 of 3 tasks have no annotation" in done.err
    assert maps(run)["one"][:30, :20].all()


def test_an_export_without_any_annotation_says_nothing(cli, tmp_path):
    run = one(tmp_path)
    before = contents(run)
    path = tmp_path / "project.json"
    path.write_text(json.dumps([skipped(data={"image": "/data/local-files/?d=photos/one.jpg"})]))
    done = cli("import", run, path, "--empty", "--checked")
    assert done.code == 1 and "nobody has annotated" in done.err and "JSON" in done.err
    assert contents(run) == before


def test_a_task_of_json_min_that_nobody_has_annotated_is_left_out(cli, tmp_path):
    run = one(tmp_path)
    before = contents(run)
    none = dict.fromkeys(("annotator", "annotation_id", "created_at", "updated_at", "lead_time"))
    row = {"image": "/data/local-files/?d=photos/one.jpg", "id": 1, **none}
    path = tmp_path / "min.json"
    path.write_text(json.dumps([row]))
    done = cli("import", run, path, "--empty")
    assert done.code == 1 and "nobody has annotated" in done.err
    assert contents(run) == before


def test_coco_as_label_studio_names_images(cli, tmp_path):
    """Of an image in the document root itself it keeps the question of the address."""
    run = one(tmp_path)
    image = {
        "id": 0,
        "file_name": "?d=one.jpg",
        "path": "/data/local-files/?d=one.jpg",
        "width": 80,
        "height": 60,
    }
    annotation = {"id": 0, "image_id": 0, "category_id": 1, "iscrowd": 0, "area": 600, "bbox": [0, 0, 20, 30],
                  "segmentation": [[0, 0, 20, 0, 20, 30, 0, 30]]}  # fmt: skip
    document = {"images": [image], "categories": [{"id": 1, "name": "cat"}], "annotations": [annotation]}
    path = tmp_path / "result_coco.json"
    path.write_text(json.dumps(document))
    done = cli("import", run, path)
    assert done.code == 0, done.err
    assert (maps(run)["one"] == 1).sum() == 600


def test_cvat_shapes_lie_on_each_other_by_their_order(cli, tmp_path):
    run = one(tmp_path)
    path = tmp_path / "cvat.xml"
    path.write_text(
        "<annotations><version>1.1</version><meta/><image id='0' name='in/one.jpg' width='80' height='60'>"
        "<polygon label='red car' points='10,10;30,10;30,30;10,30' z_order='2'></polygon>"
        "<box label='cat' xtl='0' ytl='0' xbr='20' ybr='20' z_order='1'></box>"
        "<ellipse label='cat' cx='60' cy='30' rx='10' ry='10' z_order='0'></ellipse>"
        "<tag label='cat'></tag></image></annotations>"
    )
    assert cli("import", run, path).code == 1
    done = cli("import", run, path, "--on-top")
    assert done.code == 0, done.err
    found = maps(run)["one"]
    assert (found[10:30, 10:30] == 2).all() and (found[:10, :20] == 1).all() and found[5, 25] == 0
    assert abs((found[:, 45:] == 1).sum() - np.pi * 100) < 8


def test_a_region_without_a_pixel_is_said(cli, tmp_path):
    run = one(tmp_path)
    path = tmp_path / "one.json"
    data = {"shapes": [
        {"label": "cat", "shape_type": "polygon", "points": [[1.1, 1.1], [1.2, 1.1], [1.2, 1.2]]},
        {"label": "cat", "shape_type": "polygon", "points": [[10, 10], [12, 10], [12, 12]]},
    ], "imagePath": "one.jpg", "imageHeight": 60, "imageWidth": 80}  # fmt: skip
    path.write_text(json.dumps(data))
    done = cli("import", run, path)
    assert done.code == 0 and "shape 1 (cat) covers no centre of a pixel" in " ".join(done.err.split())


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
