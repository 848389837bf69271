"""Sizes are said where they are not what one would think, and results stream while a run goes on."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import PurePosixPath
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

from clipseg_cli import Segmenter
from clipseg_cli.commands.segment import SegmentRun
from clipseg_cli.data import images, opening
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ImageError
from clipseg_cli.inference import stream
from clipseg_cli.outputs import Outputs
from clipseg_cli.types import ImageSource


@pytest.fixture
def segment(cli, tiny_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*args):
        return cli("segment", *args, "-c", "cat,dog", *tiny_clip.options, "--templates", "single")

    return run


def test_a_short_side_that_was_asked_for_is_the_one_that_is_read(tiny_clip, tmp_path, segment, make_image):
    """A long side of 2,048 pixels used to cap it without a word."""
    make_image(tmp_path / "wide.png", 40, 120)
    for side in (682, 800):
        assert segment("wide.png", "--short-side", side, "--stride", 64, "--out", f"at{side}").code == 0
    settings = json.loads((tmp_path / "at800/classes.json").read_text())["model"]["settings"]
    assert settings["long_side"] is None and settings["short_side"] == 800
    labels = [Image.open(tmp_path / f"at{side}/wide.png").tobytes() for side in (682, 800)]
    assert labels[0] != labels[1]


def test_a_limit_that_is_kept_is_said(segment, make_image, tmp_path):
    make_image(tmp_path / "wide.png", 40, 400)
    done = segment("wide.png", "--protocol", "sclip", "--short-side", 300)
    assert done.code == 0
    assert "read at 2048x205 pixels, not 3000x300: the long side is at most 2048" in " ".join(
        done.err.split()
    )


def test_an_image_that_is_read_much_smaller_says_so_once_in_a_folder(segment, make_image, tmp_path):
    for i in range(7):
        make_image(tmp_path / f"in/{i}.png", 290, 260 + i)
    done = segment("in", "--short-side", 32)
    assert done.code == 0
    assert done.err.count("times smaller than it is") == 1
    assert done.err.count("Note: ") == 1


def test_json_lines_come_one_by_one_and_are_there_when_a_run_is_stopped(
    segment, make_image, tmp_path, monkeypatch
):
    for i in range(3):
        make_image(tmp_path / f"in/{i}.png", 40, 50)
    (tmp_path / "in/1.png").write_bytes(b"no picture")
    whole = segment("in", "--json-lines")
    lines = [json.loads(line) for line in whole.out.splitlines()]
    assert whole.code == 1 and len(lines) == 3
    assert sum("error" in line for line in lines) == 1
    assert all((tmp_path / line["labels"]).is_file() for line in lines if "labels" in line)

    iterate = SegmentRun.__iter__

    def two_then_stop(self):
        yield from islice(iterate(self), 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(SegmentRun, "__iter__", two_then_stop)
    stopped = segment("in", "--json-lines")
    assert stopped.code == 130
    assert [json.loads(line)["image"] for line in stopped.out.splitlines()] == [
        line["image"] for line in lines[:2]
    ]
    assert segment("in", "--json", "--json-lines").code == 2


def test_a_lone_word_is_not_taken_for_a_file_without_a_hint(segment, make_image, tmp_path):
    make_image(tmp_path / "photo.png", 40, 50)
    done = segment("photo.png", "dog")
    assert done.code == 1
    assert "dog: no such file or folder" in done.err and "words are joined by commas" in done.err


def test_a_missing_file_is_told_before_torch_is_imported(tmp_path, process_env):
    code = (
        "import sys\nfrom clipseg_cli.cli.main import main\n"
        "try:\n    main(['segment', 'missing.jpg', '-c', 'cat'])\n"
        "except SystemExit as error:\n    assert error.code == 1\n"
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=process_env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "missing.jpg: no such file or folder" in done.stderr


def test_the_size_guard_of_others_stays(tiny_clip, tmp_path):
    """Pillow's limit belongs to the whole process; ours is looked at in each call."""
    before = Image.MAX_IMAGE_PIXELS
    assert before == Image.__dict__["MAX_IMAGE_PIXELS"] and before is not None
    data = bytearray()
    path = tmp_path / "large.png"
    Image.new("1", (16, 16)).save(path)
    data += path.read_bytes()
    data[16:24] = struct.pack(">II", 20_000, 20_000)  # the header claims 400 megapixels
    crc = zlib.crc32(bytes(data[12:29]))
    data[29:33] = struct.pack(">I", crc)
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"400\.0 megapixels: over the limit of 100"):
            read_image(ImageSource(path, PurePosixPath("large")))
    Segmenter.from_pretrained("emoji", device="cpu").segment(np.zeros((8, 8, 3), np.uint8), "cat")
    assert before == Image.MAX_IMAGE_PIXELS


def test_only_what_a_killed_clipseg_left_is_swept(segment, make_image, tmp_path):
    """Hidden .part files of other programs, and those in folders that this run does not write to, are not ours."""
    make_image(tmp_path / "in/photo.png", 40, 50)
    own = tmp_path / f".photo.png.{'0a' * 8}.part"
    deeper = tmp_path / f"elsewhere/.x.png.{'0a' * 8}.part"
    strangers = tmp_path / ".archive.tar.part"
    young = tmp_path / f".other.png.{'0b' * 8}.part"
    for path in (own, deeper, strangers, young):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    for path in (own, deeper, strangers):
        os.utime(path, (0, 0))
    assert segment("in", "--out", ".").code == 0
    assert not own.exists()
    assert deeper.exists() and strangers.exists() and young.exists()


@pytest.mark.parametrize("threads", [1, 2], ids=["in batches", "beside each other"])
def test_large_images_are_few_at_a_time(segment, make_image, tmp_path, monkeypatch, threads):
    """A PNG of some kilobytes may be 100 megapixels: from reading until they are written, bytes bound how many wait."""
    for name in ("IMAGES_AHEAD_BYTES", "RESULTS_BYTES", "GROUPS_BYTES"):
        monkeypatch.setattr(stream, name, 1)
    monkeypatch.setattr(stream, "pool_size", lambda device: threads)
    for i in range(10):
        make_image(tmp_path / f"in/{i}.png", 40, 50)
    read, write, held, most = SegmentRun._read, SegmentRun._write, set(), []

    def noted(self, source):
        held.add(source)
        most.append(len(held))
        return read(self, source)

    def slowly(self, source, result):
        time.sleep(0.02)
        done = write(self, source, result)
        held.discard(source)
        return done

    monkeypatch.setattr(SegmentRun, "_read", noted)
    monkeypatch.setattr(SegmentRun, "_write", slowly)
    assert segment("in").code == 0
    assert len(most) == 10 and max(most) <= 3


def test_large_images_are_decoded_one_at_a_time(make_image, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "LARGE_PIXELS", 1)
    convert, inside, most = images.to_rgb, [], []

    def slowly(image):
        inside.append(image)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return convert(image)

    monkeypatch.setattr(images, "to_rgb", slowly)
    path = make_image(tmp_path / "a.png")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read_image, [ImageSource(path, PurePosixPath("a"))] * 4))
    assert most == [1] * 4


def test_no_thread_is_started_while_there_is_work(segment, make_image, tmp_path, monkeypatch):
    """Ctrl-C within the start of a thread leaves it at work and unknown to its pool, which does not wait for it."""
    for i in range(6):
        make_image(tmp_path / f"in/{i}.png", 40, 50)
    begin, write, at_work, late = Thread.start, Outputs.write, [], []

    def note_start(self):
        if at_work:
            late.append(self.name)
        begin(self)

    def slowly(self, *args):
        at_work.append(True)
        time.sleep(0.1)  # so that the next image needs another thread
        return write(self, *args)

    monkeypatch.setattr(Thread, "start", note_start)
    monkeypatch.setattr(Outputs, "write", slowly)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # images in batches, not beside each other
    try:
        assert segment("in", "--workers", 3, "--batch-size", 1).code == 0
    finally:
        torch.set_num_threads(threads)
    assert at_work and not [name for name in late if name.startswith(("read", "write"))]


DECIDING = """
import pathlib, torch
from clipseg_cli.inference.decide import decide
from clipseg_cli.types import ClassList, Context, LogitMaps, Words
torch.set_num_threads(1)
names = ("background", "cat", "dog")
classes = ClassList(names, tuple((name,) for name in names), 0)
words = Words(classes, torch.tensor([0, 1, 2], dtype=torch.uint8), 1, None)
maps = LogitMaps((torch.randn(3, 30, 40),))
def run(size):
    return decide(maps, Context(words, None, None, size, 40.0, "token"), 0.9)
run((64, 64))
status = lambda key: int(next(x for x in pathlib.Path("/proc/self/status").read_text().splitlines()
                              if x.startswith(key)).split()[1])
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
run((3000, 8000))
print((status("VmHWM") - before) * 1024 / 24e6)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_deciding_takes_nine_bytes_a_pixel(warm):
    """Winner 2, confidence 4, label 1; an index of the whole image would be 8 more, a threshold another 6."""
    done = warm("-c", DECIDING)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, err
    assert 7 <= float(out) < 9.5
