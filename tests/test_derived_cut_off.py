"""What is made of labels, killed anywhere: it is told from what somebody has edited, and follows the labels again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from run_folders import make_photos

from clipseg_cli.commands import segment
from clipseg_cli.commands.renew import find_renewals
from clipseg_cli.outputs.labels import encode_labels
from clipseg_cli.runs.derived import Derived, announce_derived, note_derived, read_derived
from clipseg_cli.runs.records import file_fingerprint
from clipseg_cli.types import ClassList

CLASSES = ClassList(("background", "cat", "dog"), (("background",), ("cat",), ("dog",)), 0)

CONVERT = ("--formats", "coco,label-studio,csv")
FILES = ("coco.json", "label_studio.json", "label_studio.xml", "regions.csv")

KILLED_AT_EVERY_STEP = """
import contextlib, io, json, os, shutil, sys
from pathlib import Path
from clipseg_cli.cli.main import main
from clipseg_cli.commands.renew import find_renewals
from clipseg_cli.commands import convert
convert.settle = lambda: None  # a power cut is another matter
before, later, work, names, *command = sys.argv[1:]

def call(*words):
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            main(list(words))
        except SystemExit as error:
            return error.code or 0
    return 0

def child(limit):
    seen = 0
    def watch(event, args):
        nonlocal seen
        writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in ("os.rename", "os.remove")) and str(args[0]).startswith(work):
            seen += 1
            if seen == limit:
                os._exit(77)  # no finally, no flush: as SIGKILL
    sys.addaudithook(watch)
    os._exit(call("convert", work, *command))

def renewed():
    said = []
    for one in find_renewals(Path(work)):
        if one.conversion is None:
            said.append(one.sentence)
        else:
            said += [str(done.error) for done in one.conversion if done.error]
    return said

assert call("convert", before, *command, "--out", work) == 0  # imports all there is to import
codes, told, found = [], [], []
while not codes or codes[-1] == 77:
    shutil.rmtree(work)
    shutil.copytree(before, work)
    pid = os.fork()
    if not pid:
        child(len(codes) + 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    shutil.copytree(later, work, dirs_exist_ok=True)
    told.append(renewed())
    there = [path for path in Path(work).iterdir() if path.name in names.split(",")]
    found.append({path.name: path.read_text() for path in there})
print(json.dumps([codes, told, found]))
"""


def put_label(folder, image, seed):
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.random.default_rng(seed).integers(0, 3, (3, 4), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    (folder / f"{image}.png").write_bytes(encode_labels(labels, CLASSES, image=image))


@pytest.mark.parametrize("state", ["new", "changed", "gone"])
def test_files_about_all_images_follow_wherever_a_conversion_was_killed(cli, tmp_path, process_env, state):
    before, later = tmp_path / "before", tmp_path / "later"
    for i in range(3):
        put_label(before, f"{i}", i)
    if state != "new":
        assert cli("convert", before, *CONVERT).code == 0
        put_label(before, "0", 10)
        if state == "gone":
            (before / "2.png").unlink()
    put_label(later, "1", 11)  # is corrected once the process is gone
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            KILLED_AT_EVERY_STEP,
            before,
            later,
            tmp_path / "work",
            ",".join(FILES),
            *CONVERT,
        ],
        env=process_env,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    codes, told, found = json.loads(done.stdout.splitlines()[-1])
    assert codes[:-1] == [77] * (len(codes) - 1) and codes[-1] == 0 and len(codes) > 12
    assert told == [[]] * len(codes)  # nothing was taken for edited
    shutil.copytree(later, before, dirs_exist_ok=True)
    assert cli("convert", before, *CONVERT, "--out", tmp_path / "fresh").code == 0
    fresh = {name: (tmp_path / "fresh" / name).read_text() for name in FILES}
    assert found[-1] == fresh
    for files in found:  # of a first conversion that was killed too early, there are none
        assert files == {name: fresh[name] for name in files}
        assert len(files) == len(FILES) or state == "new"


class Cut(BaseException):
    """The process ends here."""


def test_what_segment_was_writing_again_follows_the_labels_too(cli, tiny_clip, tmp_path, monkeypatch):
    """Killed between coco.json, which was made of the labels before, and the note that it no longer is."""
    photos, out = make_photos(tmp_path / "photos", 3), tmp_path / "out"
    line = (
        "segment",
        photos,
        "--classes",
        "cat,dog",
        *tiny_clip.options,
        "--templates",
        "single",
        "--out",
        out,
    )
    assert cli(*line, "--formats", "labels").code == 0
    assert cli("convert", out, "--formats", "coco").code == 0

    def dying(*_):
        raise Cut

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(segment, "forget_derived", dying)
        cli(*line, "--formats", "labels,coco", "--method", "naclip")
    (one,) = read_derived(out)
    assert one.is_untouched(out) and one.classes == ()
    (renewal,) = find_renewals(out)
    assert [done.error for done in renewal.conversion] == [None] * 3
    assert not list(find_renewals(out))


# The record


def noted(home, text, images):
    (home / "coco.json").write_text(text)
    files = {"coco.json": file_fingerprint(home / "coco.json")}
    return Derived("coco", ".", {}, ["cat"], files=files, images=images)


def announced(home, text, images, there):
    """A note of "old", and one that `text` is about to come; `there` lies there then."""
    note_derived(home, [noted(home, "old", {"1": "a", "2": "b"})])
    announce_derived(home, noted(home, text, images))
    (home / "coco.json").write_text(there)
    (one,) = read_derived(home)
    return one


def test_what_was_announced_and_did_not_come_changes_nothing(tmp_path):
    one = announced(tmp_path, "new", {"1": "c"}, "old")
    assert one.images == {"1": "a", "2": "b"} and one.classes == ["cat"]
    assert one.is_there(tmp_path) and one.is_untouched(tmp_path)


def test_what_was_announced_and_came_is_ours_and_of_no_labels(tmp_path):
    one = announced(tmp_path, "new", {"1": "c", "3": "d"}, "new")
    assert one.images.keys() == {"1", "2", "3"} and one.classes == ()
    assert one.is_there(tmp_path) and one.is_untouched(tmp_path)


def test_what_is_edited_behind_a_killed_process_is_known_as_edited(tmp_path):
    one = announced(tmp_path, "new", {"1": "c"}, "new, and mine")
    assert not one.is_untouched(tmp_path)
