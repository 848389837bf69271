"""A pseudo-label run takes up images that came, went or changed, and words behind those that it had."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from dataset_trees import save_image
from run_folders import (  # noqa: F401
    contents,
    correct_upper_half,
    labels_in,
    make_photos,
    run_command,
    run_folder,
    stopped_after,
    times,
)

WORDS = ("--classes", "cat,dog")
MORE = ("--classes", "cat,dog,cow")


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos", 5)


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def listed(folder):
    return [json.loads(line)["image"] for line in (folder / "images.jsonl").read_text().splitlines()]


def label_times(folder):
    return {name: time for name, time in times(folder).items() if name.startswith("labels/")}


def correct(path, value=2):
    """What the file is once somebody has corrected it."""
    correct_upper_half(path, value)
    return path.read_bytes()


# Images that came


def test_only_new_images_are_labelled_and_the_manifest_says_which(run, photos, folder):
    assert run(photos, *WORDS).code == 0
    before = label_times(folder)
    save_image(photos / "00a.png", size=(14, 16), seed=50)  # in the middle of the list
    save_image(photos / "99.png", size=(14, 16), seed=51)
    done = run(photos, *WORDS)
    assert done.code == 0, done.err
    assert "Note: the data set has 2 images (00a, 99) that this run has not labelled yet" in done.err
    assert "5 images were done before" in done.err and "2 images in " in done.err
    after = label_times(folder)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"labels/00a.png", "labels/99.png"}
    assert listed(folder) == ["00", "00a", "01", "03", "04", "99", "trip/02"]
    found = manifest_of(folder)
    change = {"changed": "images", "before": 5, "now": 7, "new": ["00a", "99"], "removed": []}
    assert found["complete"] and found["history"] == [change]
    assert found["dataset"]["images"] == found["result"]["images"] == 7
    again = times(folder)
    assert "nothing was left to do" in run(photos, *WORDS).err
    assert times(folder) == again


def test_labels_are_those_of_a_run_that_had_all_images_at_once(run, photos, folder):
    hidden = photos.parent / "01.png"
    (photos / "01.png").rename(hidden)
    assert run(photos, *WORDS).code == 0
    hidden.rename(photos / "01.png")
    assert run(photos, *WORDS).code == 0
    assert run(photos, *WORDS, "--name", "fresh").code == 0
    grown, fresh = labels_in(folder), labels_in(folder.with_name("fresh"))
    assert grown.keys() == fresh.keys()
    assert all(np.array_equal(grown[name], fresh[name]) for name in fresh)


def test_an_unfinished_run_takes_up_new_images(run, photos, folder, monkeypatch):
    with stopped_after(monkeypatch, 3):
        assert run(photos, *WORDS).code == 130
    save_image(photos / "00a.png", size=(14, 16), seed=50)
    (photos / "04.png").unlink()
    with stopped_after(monkeypatch, 1):
        assert run(photos, *WORDS).code == 130
    assert run(photos, *WORDS).code == 0
    assert set(listed(folder)) == {"00", "00a", "01", "03", "trip/02"}
    # Several threads write: the label of the image that left may be among those written before Ctrl-C, and stays.
    assert set(labels_in(folder)) - {"04"} == set(listed(folder))


def test_batches_stay_when_a_label_of_the_first_images_is_made_again(run, photos, folder):
    assert run(photos, *WORDS).code == 0
    save_image(photos / "00a.png", size=(14, 16), seed=50)
    assert run(photos, *WORDS).code == 0
    whole = contents(folder)
    (folder / "labels/01.png").unlink()
    assert run(photos, *WORDS).code == 0
    assert contents(folder) == whole
    batches = json.loads((folder / "batches.json").read_text())["batches"]
    assert batches["00"] == batches["01"] != batches["00a"] == 3


@pytest.mark.parametrize("text", ["", "[]", '{"batches": 3}', '{"images_sha256": "x", "batches": {}}'])
def test_damaged_batches_lose_no_label(run, photos, folder, text):
    assert run(photos, *WORDS).code == 0
    save_image(photos / "00a.png", size=(14, 16), seed=50)
    assert run(photos, *WORDS).code == 0
    (folder / "batches.json").write_text(text)
    (folder / "labels/01.png").unlink()
    assert run(photos, *WORDS).code == 0
    assert set(labels_in(folder)) == set(listed(folder)) and manifest_of(folder)["complete"]


def test_parts_of_a_run_do_not_change_its_list_and_go_on_with_it(run, photos, folder):
    assert run(photos, *WORDS).code == 0
    save_image(photos / "00a.png", size=(14, 16), seed=50)
    before = contents(folder)
    done = run(photos, *WORDS, "--shard", "1/2")
    assert done.code == 1 and "was begun with other images" in done.err
    assert "without --shard or torchrun" in done.err
    assert contents(folder) == before
    assert run(photos, *WORDS).code == 0
    whole = contents(folder)
    for name in ("00a", "01", "04"):
        (folder / f"labels/{name}.png").unlink()
    assert run(photos, *WORDS, "--shard", "1/2").code == run(photos, *WORDS, "--shard", "2/2").code == 0
    assert contents(folder) == whole


# Images that went


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_that_nobody_writes_to_fails_alone(run, photos, folder):
    os.mkfifo(photos / "pipe.png")
    done = run(photos, *WORDS)
    assert done.code == 1 and "a pipe that nobody writes to" in done.err
    assert len(labels_in(folder)) == 5


def test_labels_of_removed_images_stay_and_leave_all_lists(run, cli, photos, folder, tmp_path):
    assert run(photos, *WORDS).code == 0
    labels, pixels = contents(folder / "labels"), manifest_of(folder)["result"]["pixels"]
    (photos / "03.png").unlink()
    done = run(photos, *WORDS)
    assert done.code == 0, done.err
    said = (
        "1 image (03) is no longer in the data set: its label stays in the folder, and in no list and count"
    )
    assert said in done.err and "nothing was left to do" in done.err
    assert "labelled again" not in done.err
    assert contents(folder / "labels") == labels
    assert listed(folder) == ["00", "01", "04", "trip/02"]
    found = manifest_of(folder)
    assert found["result"]["images"] == 4 and found["result"]["pixels"] == pixels - 12 * 16
    assert found["history"][0]["removed"] == ["03"]
    assert [json.loads(line)["image"] for line in (folder / "removed.jsonl").read_text().splitlines()] == [
        "03"
    ]

    converted = cli("convert", folder, "--formats", "csv", "--out", tmp_path / "csv")
    assert converted.code == 0, converted.err
    assert "1 label of an image that has left the data set is left out, such as 03" in converted.err
    rows = (tmp_path / "csv/regions.csv").read_text().splitlines()[1:]
    assert {row.partition(",")[0].removesuffix(".png") for row in rows} == {"00", "01", "04", "trip/02"}


def test_an_image_that_comes_back_has_its_label_already(run, photos, folder):
    assert run(photos, *WORDS).code == 0
    whole = contents(folder)
    data = (photos / "03.png").read_bytes()
    (photos / "03.png").unlink()
    assert run(photos, *WORDS).code == 0
    (photos / "03.png").write_bytes(data)
    done = run(photos, *WORDS)
    assert done.code == 0
    assert "1 image (03) came back to the data set" in done.err and "nothing was left to do" in done.err
    now = contents(folder)
    assert len(json.loads(now.pop("manifest.json"))["history"]) == 2
    assert now == {name: text for name, text in whole.items() if name != "manifest.json"}


def test_a_corrected_label_waits_for_its_image(run, photos, folder):
    assert run(photos, *WORDS).code == 0
    mine = correct(folder / "labels/03.png")
    data = (photos / "03.png").read_bytes()
    (photos / "03.png").unlink()
    assert run(photos, *WORDS).code == 0
    assert run(photos, *MORE).code == 0
    (photos / "03.png").write_bytes(data)
    done = run(photos, *MORE)
    assert done.code == 0, done.err
    assert (folder / "labels/03.png").read_bytes() == mine


# Images that changed


def test_an_image_of_other_bytes_and_the_same_size_is_noticed(run, photos, folder):
    assert run(photos, *WORDS).code == 0
    path = photos / "01.png"
    before, times_ = path.stat(), label_times(folder)
    old = path.read_bytes()
    save_image(path, size=(14, 16), seed=77)
    new = path.read_bytes()
    path.write_bytes(new[: len(old)] if len(new) > len(old) else new + b"\0" * (len(old) - len(new)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps its time
    assert path.stat().st_size == len(old)
    done = run(photos, *WORDS)
    assert "1 image (01) was replaced since it was labelled, and is labelled again" in done.err
    again = label_times(folder)
    assert {name for name in times_ if again[name] != times_[name]} == {"labels/00.png", "labels/01.png"}


def test_an_image_that_was_only_touched_is_not_labelled_again(run, photos, folder):
    assert run(photos, *WORDS).code == 0
    before = times(folder)
    (photos / "01.png").touch()
    assert "nothing was left to do" in run(photos, *WORDS).err
    assert times(folder) == before


# Words


def test_words_behind_the_others_rename_no_id(run, photos, folder):
    assert run(photos, *WORDS).code == 0
    done = run(photos, *MORE)
    assert done.code == 0, done.err
    assert "Note: the class list has grown by cow; all ids stay as they were" in done.err
    assert "done before" not in done.err
    found = manifest_of(folder)
    assert [row["name"] for row in found["classes"]] == ["background", "cat", "dog", "cow"]
    assert found["history"] == [{"changed": "classes", "before": 3, "now": 4, "new": ["cow"]}]
    assert run(photos, *MORE, "--name", "fresh").code == 0
    fresh = contents(folder.with_name("fresh"))
    assert json.loads(fresh.pop("manifest.json"))["result"] == found["result"]
    assert {name: text for name, text in contents(folder).items() if name in fresh} == fresh


@pytest.mark.parametrize("words", ["dog,cat", "cat", "cat,cow,dog", "cat|kitten,dog,cow"])
def test_any_other_list_is_refused_with_both(run, photos, folder, words):
    assert run(photos, *WORDS).code == 0
    before = times(folder)
    done = run(photos, "--classes", words)
    assert done.code == 1 and f"--classes: cat,dog, now {words}" in done.err
    assert times(folder) == before


def test_more_classes_than_a_byte_holds_are_another_run(run, photos, folder, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("".join(f"thing {i}\n" for i in range(254)))
    assert run(photos, "--classes", words, "--background", "none").code == 0
    before = times(folder)
    words.write_text("".join(f"thing {i}\n" for i in range(256)))  # 255 would be a class, and is "ignore"
    done = run(photos, "--classes", words, "--background", "none")
    assert done.code == 1 and "classes: 254, now 256" in done.err
    assert times(folder) == before


def test_human_labels_stay_whatever_a_run_takes_up(run, cli, photos, folder, tmp_path):
    assert run(photos, *WORDS).code == 0
    corrected = tmp_path / "mine"
    corrected.mkdir()
    for name in ("01", "03"):
        shutil.copy(folder / f"labels/{name}.png", corrected)
        correct(corrected / f"{name}.png")
    assert cli("import", folder, corrected, "--format", "labels", "--by", "me").code == 0
    mine = {name: (folder / f"labels/{name}.png").read_bytes() for name in ("01", "03")}
    marks = (folder / "human.jsonl").read_bytes()
    data = (photos / "03.png").read_bytes()

    def unchanged(*args):
        done = run(photos, *args)
        assert done.code == 0, done.err
        assert mine == {name: (folder / f"labels/{name}.png").read_bytes() for name in mine}
        assert (folder / "human.jsonl").read_bytes() == marks

    unchanged(*MORE)
    (photos / "03.png").unlink()
    unchanged(*MORE)
    (photos / "03.png").write_bytes(data)
    unchanged("--classes", "cat,dog,cow,sheep")
    (folder / "images.jsonl").unlink()
    save_image(photos / "99.png", size=(14, 16), seed=51)
    unchanged("--classes", "cat,dog,cow,sheep")
    assert set(listed(folder)) == {"00", "01", "03", "04", "99", "trip/02"}
    shown = cli("convert", folder, "--formats", "csv", "--out", tmp_path / "csv")
    assert shown.code == 0, shown.err
