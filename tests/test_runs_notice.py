"""A pseudo-label run notices what others did to it: labels removed, cut, corrected, replaced; pictures replaced."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from dataset_trees import save_image
from PIL import Image
from run_folders import NAMES, contents, correct_upper_half, make_small_voc, run_command, run_folder  # noqa: F401

from clipseg_cli.commands import pseudolabel
from clipseg_cli.utils import files


@pytest.fixture
def voc(tmp_path):
    return make_small_voc(tmp_path / "voc", 3)


def label(folder, number=0):
    return folder / "labels" / f"{NAMES[number]}.png"


def ids(path):
    with Image.open(path) as image:
        return np.asarray(image).copy()


@pytest.mark.parametrize("what", ["a label", "all labels", "the whole run"])
def test_labels_that_vanish_while_it_works_make_it_fail(run, voc, folder, monkeypatch, what):
    write, seen = pseudolabel.write_bytes, []

    def remove_then_write(path, data):
        if seen and what == "a label":
            seen[0].unlink(missing_ok=True)
        elif seen:
            shutil.rmtree(folder / "labels" if what == "all labels" else folder)
        seen.append(path)
        return write(path, data)

    monkeypatch.setattr(pseudolabel, "write_bytes", remove_then_write)
    done = run(voc, "--workers", 1)
    assert done.code == 1
    assert "is done" not in done.err
    monkeypatch.undo()
    if what == "the whole run":
        shutil.rmtree(folder)
    assert run(voc).code == 0
    assert all(label(folder, i).is_file() for i in range(3))


def test_a_corrected_label_stays_is_said_and_is_counted(run, voc, folder):
    assert run(voc).code == 0
    wanted = correct_upper_half(label(folder))
    done = run(voc, "--json")
    assert done.code == 0
    assert f"1 label ({NAMES[0]}) was changed since this run wrote it" in done.err
    assert np.array_equal(ids(label(folder)), wanted)
    (row,) = (row for row in json.loads(done.out)["classes"] if row["id"] == 3)
    others = sum(int((ids(label(folder, i)) == 3).sum()) for i in (1, 2))
    assert row["pixels"] == int((wanted == 3).sum()) + others
    before = contents(folder)
    assert run(voc).code == 0 and contents(folder) == before


@pytest.mark.parametrize(
    "what", ["its neighbour's label is gone", "its picture was replaced", "it cannot be read"]
)
def test_a_corrected_label_stays_when_its_batch_is_done_again(run, voc, folder, what):
    assert run(voc).code == 0
    wanted = correct_upper_half(label(folder))
    if what == "its picture was replaced":
        save_image(voc / "JPEGImages" / f"{NAMES[0]}.jpg", size=(40, 60), seed=99)
    else:
        label(folder, 1).unlink()
    if what == "it cannot be read":
        (voc / "JPEGImages" / f"{NAMES[0]}.jpg").write_bytes(b"")
    done = run(voc)
    assert done.code == 0, done.err
    assert f"1 label ({NAMES[0]}) was changed since this run wrote it, and stays as it is" in done.err
    assert label(folder, 1).is_file()
    assert np.array_equal(ids(label(folder)), wanted)
    before = contents(folder)
    assert run(voc).code == 0 and contents(folder) == before


@pytest.mark.parametrize("what", ["colours", "an unknown id", "another size"])
def test_a_correction_that_is_no_label_map_is_named_and_not_written_over(run, voc, folder, what):
    assert run(voc).code == 0
    path = label(folder, 1)
    if what == "colours":
        Image.open(path).convert("RGB").save(path)
    elif what == "an unknown id":
        correct_upper_half(path, 77)
    else:
        Image.open(path).resize((5, 5)).save(path)
    before = contents(folder)
    done = run(voc)
    assert done.code == 1 and str(path) in done.err and "was changed since this run wrote it" in done.err
    assert contents(folder) == before


@pytest.mark.parametrize("what", ["cut", "empty", "text", "gone", "a folder"])
def test_a_damaged_label_is_made_again(run, voc, folder, what):
    assert run(voc).code == 0
    whole, path = contents(folder), label(folder, 2)
    data = path.read_bytes()
    path.unlink()
    if what == "a folder":
        path.mkdir()
    elif what != "gone":
        path.write_bytes({"cut": data[:-20], "empty": b"", "text": b"hello"}[what])
    done = run(voc)
    if what == "a folder":
        assert done.code == 1 and str(path) in done.err
        path.rmdir()
        assert run(voc).code == 0
    assert "nothing was left to do" not in done.err
    assert contents(folder) == whole


def test_a_picture_that_was_replaced_is_labelled_again(run, voc, folder):
    assert run(voc).code == 0
    before = contents(folder)
    save_image(voc / "JPEGImages" / f"{NAMES[1]}.jpg", size=(40, 60), seed=99)
    done = run(voc)
    assert done.code == 0
    assert f"1 image ({NAMES[1]}) was replaced since it was labelled, and is labelled again" in done.err
    assert ids(label(folder, 1)).shape == (40, 60)
    changed = {name for name, data in contents(folder).items() if before.get(name) != data}
    assert f"labels/{NAMES[1]}.png" in changed and f"labels/{NAMES[2]}.png" not in changed


def test_all_is_on_the_disk_before_a_run_is_said_to_be_complete(run, voc, folder, monkeypatch):
    complete = []

    def sync():
        manifest = folder / "manifest.json"
        complete.append(manifest.exists() and json.loads(manifest.read_text())["complete"])

    monkeypatch.setattr(files.os, "sync", sync, raising=False)
    assert run(voc).code == 0
    assert complete == [False]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"format": 1}',
        '{"format": 1, "result": []}',
        '"x"',
        '{"format": 1, "result": {"a": "\\u0000"}}',
    ],
    ids=["deep", "no result", "a list", "a text", "null byte"],
)
def test_a_damaged_manifest_is_a_sentence(run, voc, folder, text):
    assert run(voc).code == 0
    (folder / "manifest.json").write_text(text)
    done = run(voc)
    assert done.code == 1 and "manifest.json" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("field", ["height", "pixels", "image", "group", "error"])
@pytest.mark.parametrize("value", ['"x"', "-1", "null", "[]", "1e400"])
def test_a_damaged_record_is_done_again(run, voc, folder, field, value):
    assert run(voc).code == 0
    whole = contents(folder)
    lines = (folder / "images.jsonl").read_text().splitlines()
    record = json.loads(lines[1])
    damaged = json.dumps({**record, field: "@"}).replace('"@"', value)
    (folder / "images.jsonl").write_text("\n".join([lines[0], damaged, lines[2]]) + "\n")
    done = run(voc)
    assert done.code == 0, done.err
    assert contents(folder) == whole
