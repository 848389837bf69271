"""Mistakes and attacks through the real command line: nothing is lost, nothing hangs, one sentence each."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipseg_cli.cli.console import Console
from clipseg_cli.data.image_files import ROOM_FOR_ENDINGS
from clipseg_cli.outputs import FORMATS
from clipseg_cli.outputs._names import safe_name

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def segment(cli, tiny_clip, tmp_path, monkeypatch):
    """Run `clipseg segment` with the tiny model and one template, from a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*args, **kwargs):
        return cli("segment", *tiny_clip.options, "-c", "cat,dog", "--templates", "single", *args, **kwargs)

    return run


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The pictures themselves are never written over


@pytest.mark.parametrize(
    ("inputs", "out"),
    [
        (["x.png"], "."),
        (["x.png"], "linked"),
        (["sub/x.jpg", "x.png"], "sub/.."),
        (["sub/photo.jpg", "photo_overlay.jpg"], "."),
        (["sub/to_x.png"], "."),
    ],
)
def test_an_output_never_replaces_an_input(segment, make_image, tmp_path, inputs, out):
    for name in ("x.png", "sub/photo.jpg", "photo_overlay.jpg", "sub/x.jpg"):
        make_image(tmp_path / name)
    (tmp_path / "linked").symlink_to(tmp_path, target_is_directory=True)
    shutil.copy(tmp_path / "x.png", tmp_path / "to_x.png")
    (tmp_path / "sub" / "to_x.png").symlink_to(tmp_path / "to_x.png")
    before = everything(tmp_path)
    done = segment(*inputs, "--out", out)
    if done.code == 0:  # its output got another name
        assert before.items() <= everything(tmp_path).items()
        return
    assert done.code == 1
    if "would both be written as" not in done.err:
        assert "is one of the input images" in done.err
        assert "Hint: choose another folder with --out" in done.err
    assert everything(tmp_path) == before


def test_a_folder_is_not_its_own_output_folder(segment, make_image, tmp_path):
    make_image(tmp_path / "in" / "x.jpg")
    before = everything(tmp_path)
    done = segment("in", "--out", "in/")
    assert done.code == 1
    assert "Error: in: is the output folder itself" in done.err
    assert everything(tmp_path) == before


def test_an_output_folder_below_the_input_is_not_read_the_next_time(segment, make_image, tmp_path):
    make_image(tmp_path / "in" / "x.jpg")
    for _ in range(2):
        done = segment("in", "--out", "in/labels", "--json")
        assert [image["image"] for image in json.loads(done.out)["images"]] == ["in/x.jpg"]


# Names, links and pipes


@pytest.mark.parametrize("name", ["a" * 251 + ".jpg", "猫" * 83 + "ab.jpg"])
def test_a_name_that_fills_the_file_system_still_gets_all_its_outputs(segment, make_image, tmp_path, name):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        make_image(tmp_path / "x.jpg").rename(tmp_path / folder / name)
    done = segment("one", "--heatmaps", "--json")
    assert done.code == 0, done.err
    (image,) = json.loads(done.out)["images"]
    assert len(set(image["written"])) == len(image["written"]) > 2
    shutil.copy(tmp_path / "one" / name, tmp_path / "one" / f"{name[:-5]}_.jpg")  # as long, cut to the same
    done = segment("one", "--json")
    assert done.code == 1 and done.err.count("would both be written as") == 2
    assert segment("one/" + name, "two/" + name, "--full-names", "--json").code == 0


@pytest.mark.parametrize("name", FORMATS.names())
def test_every_output_leaves_room_for_its_ending(name):
    assert len(FORMATS.get(name).ending.encode()) <= ROOM_FOR_ENDINGS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_that_nobody_writes_to_does_not_hang(segment, make_image, tmp_path):
    make_image(tmp_path / "in" / "x.jpg")
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    done = segment("in")
    assert done.code == 1
    assert "Error: in/pipe.jpg: a pipe that nobody writes to" in done.err
    assert "Error: 1 of 2 images failed" in done.err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_with_a_picture_in_it_is_read(segment, make_image, tmp_path):
    data = make_image(tmp_path / "x.png", 40, 56).read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[data])
    writer.start()
    done = segment("pipe")
    writer.join()
    assert done.code == 0, done.err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("option", ["--classes", "--templates"])
def test_a_list_in_a_pipe_that_nobody_writes_to_is_empty(segment, make_image, tmp_path, option):
    os.mkfifo(tmp_path / "pipe")
    done = segment(make_image(tmp_path / "x.png"), option, "pipe")
    assert done.code == 1
    assert "Error: pipe: no " in done.err and " in this file" in done.err


def test_a_link_that_leads_nowhere_is_said_so(segment, tmp_path):
    (tmp_path / "gone.jpg").symlink_to("nothing.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    done = segment("gone.jpg", "loop.jpg")
    assert done.code == 1
    assert "gone.jpg: a link that leads nowhere; loop.jpg: a link that leads nowhere" in done.err


def test_endless_input_is_refused_before_it_fills_the_memory(segment, monkeypatch):
    class Endless(io.RawIOBase):
        taken = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            self.taken += len(buffer)
            assert self.taken < 200e6
            buffer[:] = b"y" * len(buffer)
            return len(buffer)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
    done = segment("-", "--max-megapixels", "1")
    assert (done.code, done.stdout) == (1, b"")
    assert "standard input: more than" in done.err and "--max-megapixels" in done.err


def test_a_stream_cannot_have_heat_maps_beside_it(segment, make_image, tmp_path):
    done = segment("-", "--heatmaps", stdin=make_image(tmp_path / "x.jpg").read_bytes())
    assert (done.code, done.stdout) == (2, b"")
    assert "Error: - writes the label PNG to standard output and nothing else: no --heatmaps" in done.err


# Options that reach the core with a value nobody meant


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--device", "cpu:²"], 2, "unknown device 'cpu:²'"),
        (["--device", "cpu:"], 2, "unknown device 'cpu:'"),
        (["--device", "cpu:99999999999999999999"], 2, "unknown device 'cpu:99999999999999999999'"),
        (["--out", "x" * 300], 1, "File name too long"),
        (["--out", ""], 2, "Error: --out is empty"),
    ],
)
def test_an_odd_value_is_one_sentence(segment, make_image, tmp_path, args, code, said):
    make_image(tmp_path / "x.png")
    before = everything(tmp_path)
    done = segment("x.png", *args)
    assert done.code == code
    assert said in done.err
    assert everything(tmp_path) == before


def test_a_window_of_one_pixel_is_one_patch(segment, make_image, tmp_path):
    done = segment(make_image(tmp_path / "x.png"), "--window", "1")
    assert done.code == 0, done.err


def test_a_megapixel_limit_below_one_is_spelt_out(segment, make_image, tmp_path):
    photo = make_image(tmp_path / "x.png", 96, 128)
    done = segment(photo, "--max-megapixels", "0.001")
    assert "128x96, 0.012288 megapixels: over the limit of 0.001" in done.err


# Weights and the cache


@pytest.fixture
def weights(tiny_clip, tmp_path):
    """Write a changed copy of the tiny model's weights."""

    def write(change):
        path = tmp_path / "changed.safetensors"
        save_file(change(load_file(tiny_clip.weights)), path)
        return path

    return write


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(segment, make_image, tmp_path, weights, value):
    def spoil(state):
        state["visual.ln_post.weight"][3] = value
        return state

    done = segment(make_image(tmp_path / "x.png"), "--pretrained", weights(spoil), "--json")
    assert (done.code, done.out) == (1, "")
    assert "holds NaN or infinity in visual.ln_post.weight" in done.err


@pytest.mark.parametrize("count", [1, 0])
def test_too_few_positions_do_not_fit(segment, make_image, tmp_path, weights, count):
    def cut(state):
        state["visual.positional_embedding"] = state["visual.positional_embedding"][:count].clone()
        return state

    done = segment(make_image(tmp_path / "x.png"), "--pretrained", weights(cut))
    assert done.code == 1
    assert "does not fit tiny-vit: visual.positional_embedding" in done.err


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ("", 2, "no weights with the tag ''"),
        ("x" * 300, 2, "no weights with the tag"),
        ("x" * 300 + ".pt", 1, "no such weight file"),
    ],
)
def test_odd_names_of_weights(segment, make_image, tmp_path, value, code, said):
    done = segment(make_image(tmp_path / "x.png"), "--pretrained", value)
    assert done.code == code
    assert said in done.err


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_of_any_protocol_runs_nothing_and_warns_of_nothing(segment, make_image, tmp_path, protocol):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"state_dict": Evil()}, protocol))
    done = segment(make_image(tmp_path / "x.png"), "--pretrained", path)
    assert done.code == 1
    assert not (tmp_path / "ran").exists()
    assert done.err.startswith(f"Error: {path} ") and "warn" not in done.err.lower()
    assert "Weights only load failed" not in done.err


@pytest.mark.parametrize(
    "change", [lambda e: e * float("nan"), lambda e: e.to(torch.int64), lambda e: e[:, :7], lambda e: e * 0]
)
def test_a_spoilt_cache_is_made_anew(segment, make_image, tmp_path, monkeypatch, change):
    monkeypatch.setenv("CLIPSEG_CACHE", str(tmp_path / "cache"))
    photo = make_image(tmp_path / "x.png")
    first = segment(photo, "--json")
    (entry,) = (tmp_path / "cache" / "text").iterdir()
    save_file({"text_embeds": change(load_file(entry)["text_embeds"]).contiguous()}, entry)
    second = segment(photo, "--json")
    assert second.code == 0, second.err
    assert second.out == first.out


def test_json_never_holds_nan(capsys):
    Console(as_json=True).document({"a": float("nan"), "b": [float("inf"), 1.5, "NaN"]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5, "NaN"]}


# Surroundings


def test_letters_that_the_locale_cannot_write_are_left_out_of_file_names(monkeypatch):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "latin-1")
    assert (safe_name("猫 é a"), safe_name("猫")) == ("é_a", "class")


def test_a_name_in_another_encoding_is_said_so(segment, make_image, tmp_path):
    done = segment(make_image(tmp_path / "x.png"), "--classes", "cat,\udce7\udc8c")
    assert done.code == 1
    assert "class list, item 2: " in done.err and "is not text in the encoding of this terminal" in done.err


@pytest.mark.skipif(os.name == "nt", reason="a folder in use cannot be removed there")
def test_a_current_folder_that_is_gone_is_said_so(cli, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = cli("segment", "x.png", "-c", "cat")
    monkeypatch.chdir(tmp_path)
    assert (done.code, done.err.splitlines()[0]) == (1, "Error: the current folder no longer exists")
