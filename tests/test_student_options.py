"""`--student`: where it lies, what may be wrong with its files, and which options go with it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from student_runs import (  # noqa: F401
    labels,
    one_photo,
    record,
    segment_command,
    student_run,
    students_of_teacher,
    tiny_teacher,
    write,
)

from clipseg_cli import Segmenter
from clipseg_cli.errors import ModelError, UsageError
from clipseg_cli.models.student.files import CARD, WEIGHTS

if TYPE_CHECKING:
    from pathlib import Path

# Where it lies


def test_a_run_is_its_last_checkpoint_and_best_is_the_best(run, teacher, photo):
    write(run / "checkpoints" / "last-000020", teacher, seed=1)
    write(run / "checkpoints" / "best-000015", teacher, seed=2)

    def found(path) -> str:
        return Segmenter.from_run(path, device="cpu").fingerprint

    checkpoints = {
        name: found(run / "checkpoints" / name) for name in ("last-000010", "last-000020", "best-000015")
    }
    assert len(set(checkpoints.values())) == 3
    assert found(run) == found(run / "last") == found(str(run)) == checkpoints["last-000020"]
    assert found(run / "best") == checkpoints["best-000015"]


def spoilt(what, run) -> Path:
    """A run folder with something wrong in it."""
    checkpoint = run / "checkpoints" / "last-000010"
    if what == "json":
        (checkpoint / CARD).write_text((checkpoint / CARD).read_text()[:100])
    if what == "weights":
        (checkpoint / WEIGHTS).write_bytes((checkpoint / WEIGHTS).read_bytes()[:5000])
    if what == "no weights":
        (checkpoint / WEIGHTS).unlink()
    if what == "format":
        (checkpoint / CARD).write_text((checkpoint / CARD).read_text().replace('"format": 1', '"format": 99'))
    if what == "empty":
        shutil.rmtree(checkpoint)
    if what == "no run":
        shutil.rmtree(run / "checkpoints")
    return run / "nowhere" if what == "nowhere" else run


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("json", f"{CARD} is damaged"),
        ("weights", f"{WEIGHTS} is damaged or cut short"),
        ("no weights", WEIGHTS),
        ("format", "has format 99"),
        ("empty", "has no checkpoint yet"),
        ("no run", "is no run of clipseg train"),
        ("nowhere", "nowhere: no such folder"),
    ],
)
def test_files_that_are_not_right_are_one_sentence(segment, run, tmp_path, what, said):
    folder = spoilt(what, run)
    done = segment(folder)
    assert done.code == 1
    assert done.err.startswith("Error: ") and said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match=said):
        Segmenter.from_run(folder, device="cpu")


@pytest.mark.parametrize("training", [{}, {"data": None}, {"data": {"root": "x"}, "unseen": []}])
def test_a_card_without_its_data_set_asks_for_one(cli, tmp_path, teacher, training):
    folder = write(tmp_path / "student", teacher, training=training)
    done = cli("eval", "--student", folder)
    assert done.code == 1
    assert "does not say on which data set it was trained" in done.err and "--dataset ROOT" in done.err


# Options that go with it


@pytest.mark.parametrize(
    "option",
    [
        ("--model", "ViT-B-16"),  # the defaults are refused too: whoever writes them means something
        ("--pretrained", "openai"),
        ("--method", "maskclip"),
        ("--protocol", "default"),
        ("--templates", "single"),
        ("--prompt-denoising", "0"),
        ("--key-smoothing", "1"),
    ],
)
def test_options_about_a_clip_are_refused(segment, run, option):
    done = segment(run, *option)
    assert done.code == 2
    assert f"Error: {option[0]} is about a CLIP; a student is used as it was trained" in done.err
    assert f"Hint: leave out --student or {option[0]}" in done.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--student", "{run}", "--background", "none"), "--background goes with --classes"),
        (("--student", "{run}", "--classes", " "), "--classes is empty"),
        (("--student", ""), "--student is empty"),
        (("--student", "", "--classes", "cat"), "--student is empty"),
        ((), "Missing option '--classes' / '-c'."),
        (("--model", "emoji"), "Hint: list the words to look for: --classes cat,dog; or use a student"),
    ],
)
def test_something_says_what_to_look_for(cli, run, photo, args, said):
    done = cli("segment", photo, *(arg.format(run=run) for arg in args))
    assert done.code == 2
    assert said in done.err


def test_sizes_and_windows_can_be_chosen(segment, run, tmp_path):
    options = ("--short-side", "64", "--window", "32", "--stride", "16", "--batch-size", "3")
    assert segment(run, *options).code == 0
    settings = record(tmp_path)["model"]["settings"]
    assert (settings["short_side"], settings["window"], settings["stride"]) == (64, 32, 16)
    student = Segmenter.from_run(run, device="cpu", short_side=64, window=32, stride=16, batch_size=3)
    student.segment(tmp_path / "photo.png").save(tmp_path / "saved")
    assert (tmp_path / "saved/photo.png").read_bytes() == (tmp_path / "out/photo.png").read_bytes()
    with pytest.raises(UsageError, match="window: -1 is not between"):
        Segmenter.from_run(run, window=-1)
    with pytest.raises(TypeError, match="path is text, not int"):
        Segmenter.from_run(5)


def test_regions_vote_on_what_a_student_says_too(segment, students_of, photo, tmp_path):
    assert segment(students_of / "learnt").code == 0
    plain = labels(tmp_path)
    ids = np.arange(60 * 90).reshape(60, 90) // 90 // 20 + 1
    ids[:, 70:] = 0
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "photo.npy", ids)
    done = segment(students_of / "learnt", "--regions", f"folder={tmp_path / 'maps'}", "--region-vote")
    assert done.code == 0, done.err
    voted = labels(tmp_path)
    assert np.array_equal(voted[:, 70:], plain[:, 70:]) and not np.array_equal(voted, plain)
    for number in (1, 2, 3):
        here = ids == number
        assert np.unique(voted[here]).tolist() == [np.bincount(plain[here]).argmax()]
    assert record(tmp_path)["options"]["region_vote"] is True
