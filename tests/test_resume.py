"""Killed, interrupted or mended: the same bytes as in one go."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time

import pytest
from conftest import TINY_CONFIG
from dataset_trees import save_image
from run_folders import (  # noqa: F401
    NAMES,
    SMALL,
    contents,
    labels_in,
    lasting_voc,
    make_photos,
    run_command,
    run_folder,
    stopped_after,
    times,
    voc_data,
    whole_run,
)

from clipseg_cli.runs import records as progress

# Killed

TINY = """
import os, sys, time
import open_clip
from clipseg_cli.cli.main import main
from clipseg_cli.commands import pseudolabel# loads all there is to load, and starts no thread
open_clip.add_model_config(os.environ["TINY_CONFIG"])
"""
SLOW = """
write = pseudolabel.write_bytes
pseudolabel.write_bytes = lambda *args: (time.sleep(0.5), write(*args))
"""
KILLED_AT_EVERY_STEP = """
import json
folder, step, *args = sys.argv[1:]

def child(limit):
    seen = 0
    def watch(event, args):
        nonlocal seen
        if event in ("open", "os.rename", "os.remove", "os.truncate") and str(args[0]).startswith(folder):
            seen += 1
            if seen == limit:
                os._exit(77)  # no finally, no flush, no unlock: as SIGKILL
    sys.addaudithook(watch)
    try:
        main(args)
    except SystemExit as error:
        os._exit(error.code or 0)

codes, limit = [], 0
while not codes or codes[-1] == 77:
    limit += int(step)
    pid = os.fork()
    if not pid:
        child(limit)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(codes))
"""


@pytest.fixture
def process(tiny_clip, voc, folder, tmp_path, warm):
    """Start a script in a process of its own that knows the tiny model; the command's words follow `before`."""
    config, script = tmp_path / "tiny-vit.json", tmp_path / "script.py"
    config.write_text(json.dumps(TINY_CONFIG))

    def start(code, *before, by=warm, data=voc, options=()):
        script.write_text(TINY + code)
        words = ("pseudolabel", data, *tiny_clip.options, *SMALL, *options, "--out", folder.parent)
        return by(script, *before, *words, TINY_CONFIG=str(config))

    return start


def test_what_a_killed_process_began_is_gone_on_with(process, run, voc, whole, folder):
    labels = random.SystemRandom().randint(1, 4)
    killed = process(SLOW + "main()")
    until = time.monotonic() + 40
    while len(list((folder / "labels").rglob("*.png"))) < labels and time.monotonic() < until:
        time.sleep(0.002)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "it had ended before it could be killed"
    assert not json.loads((folder / "manifest.json").read_text())["complete"]
    again = run(voc)
    assert again.code == 0
    assert f"process {killed.pid} left this run unfinished; going on where it was" in again.err
    assert contents(folder) == whole


def test_ranks_of_torchrun_make_the_same_bytes(process, torchrun, run, voc, folder, tmp_path):
    bad = voc / "JPEGImages" / f"{NAMES[3]}.jpg"  # for the second rank; the first must say so and finish
    bad.write_bytes(b"")
    assert run(voc, "--out", tmp_path / "plain").code == 1
    ranks = process("main()", by=torchrun)
    out, err = ranks.communicate(timeout=90)
    assert ranks.returncode == 1, err
    assert out.decode().count("6 images, share of all pixels") == 1
    for said in ("PASCAL VOC 2012, train split, 7 images", f"Error: {bad}", "1 of 7 images has no label"):
        assert err.decode().count(said) == 1
    assert contents(folder) == contents(tmp_path / "plain" / "run")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_again_and_again_at_any_file_it_touches(process, whole, folder):
    done = process(KILLED_AT_EVERY_STEP, folder, "3")
    out, err = done.communicate(timeout=90)
    codes = json.loads(out.splitlines()[-1]) if out else []
    assert codes[:-1] == [77] * (len(codes) - 1) and codes[-1:] == [0], (codes, err)
    assert len(codes) > 8
    assert contents(folder) == whole


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_again_and_again_while_it_takes_up_images_and_words(process, run, folder, tmp_path):
    photos, kept = make_photos(tmp_path / "photos", 4), ("--keep-features", "--classes")
    plain = tmp_path / "plain"
    for out in (plain, folder.parent):
        assert run(photos, *kept, "cat,dog", "--out", out).code == 0
    save_image(photos / "00a.png", size=(14, 16), seed=50)
    (photos / "03.png").unlink()
    assert run(photos, *kept, "cat,dog,cow", "--out", plain).code == 0
    done = process(KILLED_AT_EVERY_STEP, folder, "2", data=photos, options=(*kept, "cat,dog,cow"))
    out, err = done.communicate(timeout=120)
    codes = json.loads(out.splitlines()[-1]) if out else []
    assert codes[:-1] == [77] * (len(codes) - 1) and codes[-1:] == [0], (codes, err)
    assert len(codes) > 8
    found, wanted = contents(folder), contents(plain / "run")
    assert found.pop("features/cost.json", "") is not None and wanted.pop("features/cost.json")
    assert found == wanted


def test_a_line_cut_anywhere_is_survived(tmp_path):
    records = [
        progress.ImageRecord("a", 0, 2, 3, {0: 6}, 0, {0: 6}, {0: 1 / 3}, 0),
        progress.ImageRecord("b \u2028 猫 \udcff", 0, error="it is 'x'\n"),
        progress.ImageRecord("c", 1, 2, 3, {255: 6}),
    ]
    data = b"".join(record.line() for record in records)
    path = tmp_path / "progress.jsonl"
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        file = progress.ProgressFile(tmp_path)
        file.add(records[2:])
        file.close()
        found = progress.read_records(tmp_path, lambda image: True)
        assert found["c"] == records[2]
        for record in records[:2]:
            assert found.get(record.image, record) == record
        assert len(found) == 1 + sum(
            len(b"".join(r.line() for r in records[:n])) <= length + 1 for n in (1, 2)
        )


def test_progress_of_an_unknown_kind_is_done_again(run, voc, whole, folder):
    run(voc)
    (folder / "images.jsonl").write_bytes(b'\x00\xff\n{"image": 3}\n[]\nnull\n{"image": "a", "pixels": 3}\n')
    assert run(voc).code == 0
    assert contents(folder) == whole


# Interrupted


def test_ctrl_c_is_one_sentence_and_the_same_command_goes_on(run, voc, whole, folder, monkeypatch):
    add, calls = progress.ProgressFile.add, []

    def interrupted(self, records):
        calls.append(records)
        if len(calls) == 3:
            raise KeyboardInterrupt
        add(self, records)

    monkeypatch.setattr(progress.ProgressFile, "add", interrupted)
    done = run(voc)
    assert done.code == 130
    said = "Error: interrupted after 4 of 7 images; the same command goes on with the rest"
    assert done.err.splitlines()[-1] == said
    monkeypatch.undo()
    assert not any(name.endswith(".part") or ".lock" in name for name in contents(folder))
    again = run(voc)
    assert again.code == 0
    assert "4 images were done before" in again.err and "3 images in " in again.err
    assert contents(folder) == whole


# A picture that cannot be read


def test_a_bad_picture_is_named_and_labelled_once_it_is_mended(run, voc, whole, folder, monkeypatch):
    image = voc / "JPEGImages" / f"{NAMES[3]}.jpg"
    good = image.read_bytes()
    image.write_bytes(good[:100])
    first = run(voc)
    assert first.code == 1
    assert f"Error: {image}" in first.err
    assert "Error: 1 of 7 images has no label" in first.err
    assert "Hint: once they are mended, the same command labels them too" in first.err
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["complete"] and list(manifest["result"]["failed"]) == [NAMES[3]]
    assert set(labels_in(folder)) == set(NAMES) - {NAMES[3]}

    before = contents(folder)
    again = run(voc, "--json")
    assert again.code == 1 and f"Error: {image}" in again.err
    assert list(json.loads(again.out)["failures"]) == [NAMES[3]]
    assert contents(folder) == before

    image.write_bytes(good)
    with stopped_after(monkeypatch, 1):
        assert run(voc).code == 130
    # What is being done again is not complete meanwhile.
    assert not json.loads((folder / "manifest.json").read_text())["complete"]
    assert run(voc).code == 0
    assert contents(folder) == whole


def test_what_stands_beside_a_bad_picture_is_not_labelled_again(run, voc, folder):
    picture = voc / "JPEGImages" / f"{NAMES[3]}.jpg"  # the second of a group of two
    picture.write_bytes(b"")
    assert run(voc).code == 1
    before = times(folder)
    again = run(voc)
    assert again.code == 1 and f"Error: {picture}: the file is empty" in again.err
    assert "6 images were done before" in again.err and "1 image in " in again.err
    assert times(folder) == before

    picture.write_bytes(b"no picture")
    other = run(voc)
    assert other.code == 1 and f"Error: {picture}: not an image" in other.err
    manifest = json.loads((folder / "manifest.json").read_text())
    assert "not an image" in manifest["result"]["failed"][NAMES[3]]
    after = times(folder)
    assert {name for name in before if after[name] != before[name]} == {
        "images.jsonl",
        "manifest.json",
        "summary.png",
    }


# Locks of killed processes


@pytest.mark.parametrize("lock", [".lock", ".lock-1-of-2", ".turn"])
def test_what_a_killed_process_left_locked_is_taken_over(run, voc, whole, folder, lock, monkeypatch):
    with stopped_after(monkeypatch, 3):
        assert run(voc).code == 130
    (folder / lock).write_text(json.dumps({"pid": 7, "host": socket.gethostname()}))
    (folder / "labels" / f".{NAMES[0]}.png.{7:016x}.part").write_bytes(b"half")
    done = run(voc)
    assert done.code == 0
    assert ("Note: process 7 left this run unfinished" in done.err) == (lock != ".turn")
    assert contents(folder) == whole
