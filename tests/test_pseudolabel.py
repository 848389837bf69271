"""`clipseg pseudolabel`: what it writes and says, unsure pixels, the zero-shot setting, bad input."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_folders import (  # noqa: F401
    NAMES,
    contents,
    labels_in,
    make_photos,
    make_small_voc,
    run_command,
    run_folder,
)

from clipseg_cli.commands import pseudolabel
from clipseg_cli.runs import records as progress
from clipseg_cli.utils.files import output_errors

ZERO_SHOT = ("--keep-labels", "seen", "--unseen")


@pytest.fixture
def voc(tmp_path):
    return make_small_voc(tmp_path / "voc", 3)


# What it writes and says


def test_a_run_folder_holds_labels_manifest_list_and_sheet(run, voc, folder):
    done = run(voc)
    assert done.code == 0
    labels = {f"labels/{name}.png" for name in NAMES[:3]}
    assert set(contents(folder)) == labels | {"manifest.json", "images.jsonl", "summary.png"}
    with Image.open(folder / "labels" / f"{NAMES[0]}.png") as image:
        assert (image.mode, image.size) == ("P", (16, 12))
        assert image.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
        assert image.getpalette()[-3:] == [224, 224, 192]
    assert f"{voc}: PASCAL VOC 2012, train split, 3 images, 21 classes" in done.err
    assert f"results in {folder}" in done.err


def test_a_plain_folder_with_words_of_its_own(run, tmp_path, folder):
    done = run(make_photos(tmp_path / "photos", 3), "--classes", "cat,couch|sofa", "--background", "none")
    assert done.code == 0, done.err
    assert set(labels_in(folder)) == {"00", "01", "trip/02"}
    assert all(np.isin(labels, (0, 1)).all() for labels in labels_in(folder).values())
    classes = json.loads((folder / "manifest.json").read_text())["classes"]
    assert [c["words"] for c in classes] == [["cat"], ["couch", "sofa"]]


def test_more_classes_than_a_byte_holds(run, tmp_path, folder):
    words = tmp_path / "classes.txt"
    words.write_text("".join(f"thing {i}\n" for i in range(300)))
    photos = make_photos(tmp_path / "photos", 2)
    done = run(photos, "--classes", words, "--background", "none", "--min-confidence", "0.0045")
    assert done.code == 0, done.err
    assert json.loads((folder / "manifest.json").read_text())["ignore"] == 65535
    for labels in labels_in(folder).values():
        assert ((labels < 300) | (labels == 65535)).all()


def test_the_histogram_goes_to_stdout_and_talk_to_stderr(run, voc):
    done = run(voc)
    lines = done.out.splitlines()
    assert lines[0] == "3 images, share of all pixels"
    assert lines[1].split() == ["class", "share", "images", "confidence"]
    shares = [float(line.split()[1].rstrip("%")) for line in lines[2:]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=1)
    assert "In no image: " in done.err


def test_json_is_one_document(run, voc, folder):
    done = run(voc, "--json", "--min-confidence", "0.14")
    found = json.loads(done.out)
    assert (found["folder"], found["complete"], found["part"]) == (str(folder), True, None)
    assert (found["images"], found["failures"]) == (3, {})
    assert sum(c["share"] for c in found["classes"]) + found["ignored"] == pytest.approx(1)
    assert [c["pixels"] for c in found["classes"]] == [
        c["pixels"] for c in json.loads((folder / "manifest.json").read_text())["result"]["classes"]
    ]


def test_quiet_says_nothing_but_errors(run, tmp_path):
    photos = make_photos(tmp_path / "photos", 2)
    done = run(photos, "-c", "cat,dog", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    (photos / "00.png").write_bytes(b"no picture")
    done = run(photos, "-c", "cat,dog", "--quiet", "--name", "other")
    assert (done.code, done.out) == (1, "")
    assert all(line.startswith(("Error: ", "Hint: ")) for line in done.err.splitlines())


def test_verbose_names_every_picture(run, voc):
    assert f"{NAMES[1]}: 12x16" in run(voc, "--verbose").err


def test_the_folder_is_named_after_data_split_and_model(cli, tiny_clip, voc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("pseudolabel", voc, *tiny_clip.options, "--templates", "single")
    assert "results in runs/pseudolabel/voc-voc21-train-tiny-vit" in done.err


# Unsure pixels


def test_a_higher_bar_ignores_more_and_changes_nothing_else(run, voc, folder):
    plain, before = None, None
    for bar in ("0", "0.09", "0.12", "0.15", "1"):
        assert run(voc, "--min-confidence", bar, "--name", bar).code == 0
        labels = np.concatenate([x.ravel() for x in labels_in(folder.with_name(bar)).values()])
        ignored = labels == 255
        if plain is None:
            plain, before = labels, ignored
            assert not ignored.any()
        assert (ignored | ~before).all()  # what was ignored stays so
        assert (labels[~ignored] == plain[~ignored]).all()
        before = ignored
    assert ignored.all()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--keep-labels", "seen"], "--keep-labels seen needs to know which classes are unseen"),
        (
            ["--unseen", "cow"],
            "--unseen says which classes have no ground truth, but no ground truth is kept",
        ),
        ([*ZERO_SHOT, "cow,batman"], "unseen class 'batman' is not a class of voc21"),
        ([*ZERO_SHOT, "ccow"], "Hint: did you mean 'cow'"),
        (["--keep-labels", "sen"], "unknown --keep-labels 'sen'"),
        (["--shard", "3/2"], "--shard 3/2 is no part of anything"),
        (["--shard", "0/2"], "--shard 0/2 is no part of anything"),
        (["--name", "a/b"], "--name 'a/b' is not the name of a folder"),
        (["--name", ".."], "--name '..' is not the name of a folder"),
        (["--min-confidence", "1.1"], "1.1 is not between 0 and 1"),
        (["--classes", "cat,dog"], "--classes"),
        (["--split", "trian"], "Hint: did you mean 'train'"),
    ],
)
def test_usage_mistakes_make_no_folder(run, voc, tmp_path, args, said):
    done = run(voc, *args)
    assert done.code == 2, done.err
    assert said in done.err
    assert done.out == ""
    assert not (tmp_path / "out").exists()


# Bad input


def test_a_run_in_which_every_picture_fails_says_so(run, tmp_path, folder):
    photos = make_photos(tmp_path / "photos", 2)
    for path in photos.iterdir():
        path.write_bytes(b"no picture")
    done = run(photos, "-c", "cat,dog", "--json")
    assert done.code == 1
    assert "2 of 2 images have no label" in done.err and "Traceback" not in done.err
    assert (json.loads(done.out)["images"], json.loads(done.out)["ignored"]) == (0, 0)
    assert set(contents(folder)) == {"manifest.json", "images.jsonl", "summary.png"}
    assert run(photos, "-c", "cat,dog").code == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no image names in this file"),
        ("2012_000000\n2012_999999\n", "2012_999999"),
        ("../../secret\n", "leads out of the data set"),
    ],
)
def test_a_bad_list_is_refused(run, voc, tmp_path, text, said):
    (tmp_path / "list.txt").write_text(text)
    done = run(voc, "--split", tmp_path / "list.txt")
    assert done.code == 1
    assert f"{tmp_path / 'list.txt'}" in done.err and said in done.err
    assert not (tmp_path / "out").exists()


def test_a_run_inside_the_pictures_is_refused(cli, tiny_clip, tmp_path):
    photos = make_photos(tmp_path / "photos", 2)
    done = cli("pseudolabel", photos, "-c", "cat,dog", *tiny_clip.options, "--out", photos / "runs")
    assert done.code == 2
    assert f"lies among the images of {photos}" in done.err
    assert not (photos / "runs").exists()


def test_a_run_that_cannot_begin_leaves_no_folder(run, voc, tmp_path):
    done = run(voc, "--pretrained", tmp_path / "none.safetensors")
    assert done.code == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_odd_names_of_pictures_are_carried_through(run, tmp_path, folder):
    photos = make_photos(tmp_path / "photos", 1)
    data = (photos / "00.png").read_bytes()
    for name in (b"\xff\xe2.png", "line\u2028end.png".encode(), "猫 [red].png".encode(), b"a\x1bb.png"):
        (photos / os.fsdecode(name)).write_bytes(data)
    assert run(photos, "-c", "cat,dog").code == 0
    before = contents(folder)
    assert sum(name.startswith("labels/") for name in before) == 5
    done = run(photos, "-c", "cat,dog", "--verbose")
    assert (done.code, contents(folder)) == (0, before)
    assert "nothing was left to do" in done.err


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(run, voc, folder, monkeypatch):
    run(voc, "--name", "whole")
    write, calls = pseudolabel.write_bytes, []

    def full(path, data):
        calls.append(path)
        if len(calls) > 2:
            with output_errors(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(pseudolabel, "write_bytes", full)
    done = run(voc)
    assert done.code == 1
    assert done.err.count("Error:") == 1
    assert "no space left on the disk while writing" in done.err and "Traceback" not in done.err
    monkeypatch.undo()
    assert run(voc).code == 0
    assert contents(folder) == contents(folder.with_name("whole"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_under_the_progress_is_one_sentence(run, voc, monkeypatch):
    monkeypatch.setattr(progress, "progress_path", lambda folder, name: Path("/dev/full"))
    done = run(voc)
    assert done.code == 1
    assert done.err.count("Error:") == 1
    assert "no space left on the disk while writing /dev/full" in done.err


def test_a_label_map_is_as_upright_as_its_picture(run, tmp_path, folder):
    photos = make_photos(tmp_path / "photos", 1)
    exif = Image.Exif()
    exif[274] = 6
    Image.open(photos / "00.png").convert("RGB").save(photos / "turned.jpg", exif=exif)
    assert run(photos, "-c", "cat,dog").code == 0
    assert labels_in(folder)["turned"].shape == (16, 12)
