"""`--skip-existing` and `--watch`: what is done is left alone, and what arrives is labelled once it is whole."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from clipseg_cli.commands import watch
from clipseg_cli.config import SegmentConfig
from clipseg_cli.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("-c", "cat,dog", "--background", "none", "--templates", "single")


@pytest.fixture
def photos(make_image, tmp_path) -> Path:
    for name in ("a.jpg", "sub/b.png"):
        make_image(tmp_path / "photos" / name, 30, 40)
    return tmp_path / "photos"


@pytest.fixture
def segment(cli, tiny_clip, photos, tmp_path):
    def run(*more):
        return cli("segment", photos, *WORDS, *tiny_clip.options, "--out", tmp_path / "out", *more)

    return run


def stamps(folder: Path) -> dict[str, int]:
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != "classes.json")
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in found}


def test_what_is_done_is_not_done_again(segment, photos, make_image, tmp_path):
    assert segment().code == 0
    before = stamps(tmp_path / "out")
    make_image(photos / "new.jpg", 30, 40, seed=5)
    done = segment("--skip-existing", "--json")
    assert done.code == 0 and "2 images were labelled before" in done.err
    assert [one["image"] for one in json.loads(done.out)["images"]] == [str(photos / "new.jpg")]
    after = stamps(tmp_path / "out")
    assert {name: after[name] for name in before} == before and set(after) - set(before) == {
        "new.png",
        "new_overlay.jpg",
    }
    done = segment("--skip-existing")
    assert done.code == 0 and "3 images were labelled before" in done.err
    assert stamps(tmp_path / "out") == after


def test_a_missing_file_or_a_newer_image_is_done_again(segment, photos, tmp_path):
    assert segment().code == 0
    (tmp_path / "out" / "a_overlay.jpg").unlink()
    later = time.time() + 10
    os.utime(photos / "sub" / "b.png", (later, later))
    done = segment("--skip-existing", "--json")
    assert {one["image"] for one in json.loads(done.out)["images"]} == {
        str(photos / "a.jpg"),
        str(photos / "sub" / "b.png"),
    }


def test_one_file_about_all_images_says_nothing_of_each(segment, tmp_path):
    done = segment("--skip-existing", "--formats", "labels,coco")
    assert done.code == 2 and "--formats coco is one file about all images" in done.err
    assert "clipseg convert" in done.err and not list(tmp_path.glob("out/*.png"))


def test_other_words_are_still_refused(segment, cli, tiny_clip, photos, tmp_path):
    assert segment().code == 0
    other = ("-c", "cow,pig", "--background", "none", "--templates", "single")
    done = cli("segment", photos, *other, *tiny_clip.options, "--out", tmp_path / "out", "--skip-existing")
    assert done.code == 1 and "holds label maps of other classes" in done.err


class Watched:
    """Arrivals of a folder in a thread of their own."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.stop = threading.Event()
        self.found: list[str] = []
        self.failed: list[str] = []
        self.error: Exception | None = None
        config = SegmentConfig(images=(str(folder),), out=out)
        self.arrivals = watch.Arrivals(config, (), self.stop)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            for sources, failures in self.arrivals:
                self.found += [source.name for source in sources]
                self.failed += [failure.message for failure in failures]
        except ImageError as error:
            self.error = error

    def wait(self, condition, seconds=20.0) -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        assert condition(), (self.found, self.failed, self.error)


@pytest.fixture
def watched(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "STILL", 0.3)
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.1)
    (tmp_path / "in").mkdir()
    one = Watched(tmp_path / "in", tmp_path / "in" / "out")
    yield one
    one.stop.set()
    one.thread.join(10)
    assert not one.thread.is_alive()


def png(seed=0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (50, 60, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_file_is_read_once_nobody_writes_to_it_any_more(watched, tmp_path):
    content = png()
    with (tmp_path / "in" / "slow.png").open("wb") as file:
        for start in range(0, len(content), len(content) // 8):
            file.write(content[start : start + len(content) // 8])
            file.flush()
            time.sleep(0.1)
            assert "slow" not in watched.found
    watched.wait(lambda: "slow" in watched.found)
    (tmp_path / "in" / "sub").mkdir()
    (tmp_path / "in" / "sub" / "whole.png").write_bytes(content)
    (tmp_path / "in" / "note.txt").write_text("no image")
    (tmp_path / "in" / "out").mkdir()
    (tmp_path / "in" / "out" / "slow.png").write_bytes(content)  # a result
    watched.wait(lambda: "sub/whole" in watched.found)
    (tmp_path / "in" / "slow.png").write_bytes(png(1))
    watched.wait(lambda: watched.found.count("slow") == 2)
    assert sorted(watched.found) == ["slow", "slow", "sub/whole"]


def test_two_images_of_one_name_are_said_once(watched, tmp_path):
    for name in ("x.png", "x.jpg"):
        (tmp_path / "in" / name).write_bytes(png())
    watched.wait(lambda: watched.failed)
    (tmp_path / "in" / "y.png").write_bytes(png())
    watched.wait(lambda: watched.found == ["y"])
    assert len(watched.failed) == len(set(watched.failed)) <= 2


def test_a_folder_that_vanishes_ends_it(watched, tmp_path):
    shutil.rmtree(tmp_path / "in")
    watched.wait(lambda: watched.error is not None)
    assert "is no longer there" in watched.error.message


def test_the_command_labels_what_is_there_and_what_arrives(segment, photos, tmp_path, monkeypatch):
    """Until Ctrl-C, which a third image stands for here."""
    monkeypatch.setattr(watch, "STILL", 0.2)
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.1)
    whole = watch.Arrivals.__iter__

    def arrive(self):
        (photos / "new.png").write_bytes(png(3))
        (photos / "broken.png").write_bytes(png(3)[:50])
        seen = 0
        for found in whole(self):
            yield found
            seen += len(found[0])
            if seen == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(watch.Arrivals, "__iter__", arrive)
    done = segment("--watch")
    assert done.code == 130, done.err
    assert "stopped watching after 3 images" in done.err and "broken.png" in done.err
    assert {"a.png", "new.png", "sub"} <= {p.name for p in (tmp_path / "out").iterdir()}


def test_what_cannot_be_watched(cli, tiny_clip, photos, tmp_path):
    options = (*WORDS, *tiny_clip.options, "--out", tmp_path / "out", "--watch")
    done = cli("segment", photos / "a.jpg", *options)
    assert done.code == 2 and "--watch looks at folders" in done.err
    done = cli("segment", tmp_path / "missing", *options)
    assert done.code == 2 and "--watch looks at folders" in done.err
    done = cli("segment", photos, *options, "--json")
    assert done.code == 2 and "--json-lines" in done.err


def test_a_folder_that_is_still_empty_gets_results_of_its_own(cli, tiny_clip, tmp_path, monkeypatch):
    """The default folder that holds other classes gives way at once, and not when the first image comes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(png())
    other = ("-c", "cow,pig", "--background", "none", "--templates", "single")
    assert cli("segment", "photos", *other, *tiny_clip.options).code == 0

    def nothing(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.Arrivals, "__iter__", nothing)
    done = cli("segment", "empty", *WORDS, *tiny_clip.options, "--watch")
    assert done.code == 130 and "everything is in clipseg-out-2" in done.err, done.err
