"""Mistakes and attacks through the real command line: nothing is lost, nothing hangs, one sentence each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def segment(cli, tiny_clip, tmp_path, monkeypatch):
    """Run `clipseg segment` with the tiny model and one template, from a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*args, **kwargs):
        return cli("segment", *args, *tiny_clip.options, "-c", "cat,dog", "--templates", "single", **kwargs)

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
    assert "is one of the input pictures" in done.err and "Hint: choose another folder with --out" in done.err
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


# Stopping


@pytest.fixture
def start(tmp_path, tiny_clip, process_env, make_image):
    """Start `clipseg segment` on 60 pictures in a process of its own, with the tiny model."""
    for i in range(60):
        make_image(tmp_path / "in" / f"{i:02}.png", 160, 200, seed=i)
    (tmp_path / "run.py").write_text(
        "import sys, open_clip\n"
        f"open_clip.add_model_config({str(tiny_clip.weights.with_suffix('.json'))!r})\n"
        "from clipseg_cli.__main__ import main\n"
        "main()\n"
    )
    running = []

    def run(*args):
        command = [sys.executable, "run.py", "segment", "in", "-c", "cat,dog", "--heatmaps", *args]
        process = subprocess.Popen(
            [*command, *tiny_clip.options, "--templates", "single"],
            cwd=tmp_path,
            env=process_env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def wait_for_files(process, folder, count):
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*.png"))) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def whole_files(folder: Path) -> int:
    """How many label maps there are; every picture must open, and nothing may be half."""
    assert not list(folder.rglob("*.part"))
    for path in [*folder.rglob("*.png"), *folder.rglob("*.jpg")]:
        with Image.open(path) as image:
            image.load()
    return len(list(folder.glob("*.png")))


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_counts_every_finished_picture(start, tmp_path):
    process, out = start(), tmp_path / "clipseg-out"
    wait_for_files(process, out, 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert f"interrupted after {whole_files(out)} of 60 images".encode() in err


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_second_ctrl_c_ends_at_once(start, tmp_path):
    process, out = start(), tmp_path / "clipseg-out"
    wait_for_files(process, out, 3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Error: interrupted" in err and b"Traceback" not in err
    assert whole_files(out) >= 3


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_request_to_end_finishes_the_files_being_written(start, tmp_path):
    process, out = start(), tmp_path / "clipseg-out"
    wait_for_files(process, out, 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"Traceback" not in err
    assert whole_files(out) >= 3


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_while_the_command_line_is_imported_is_one_line(process_env):
    code = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from clipseg_cli.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, "segment", "x.png", "-c", "cat"]
    done = subprocess.run(command, env=process_env, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr, done.stdout) == (130, b"Error: interrupted\n", b"")


def test_ctrl_c_while_the_options_are_parsed_is_one_line(cli, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.core.TyperGroup.parse_args", interrupted)
    done = cli("--version")
    assert (done.code, done.out, done.err) == (130, "", "Error: interrupted\n")


def test_the_installed_command_is_the_process_that_ends_well():
    scripts = Path(__file__).parents[1] / "pyproject.toml"
    assert 'clipseg = "clipseg_cli.__main__:main"' in scripts.read_text()
