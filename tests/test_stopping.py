"""A command that is stopped, or whose streams are closed or full: whole files, the right exit code, one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from warm_server import warm_script

# Stopping


@pytest.fixture
def start(tmp_path, tiny_clip, warm, make_image):
    """Start `clipseg segment` on 60 pictures in a process of its own, with the tiny model and slow to write."""
    for i in range(60):
        make_image(tmp_path / "in" / f"{i:02}.png", 80, 100, seed=i)
    (tmp_path / "run.py").write_text(
        "import sys, time, open_clip\n"
        "from clipseg_cli.outputs import Outputs\n"
        "write = Outputs.write\n"
        "Outputs.write = lambda *args: (time.sleep(0.2), write(*args))[1]\n"
        f"open_clip.add_model_config({str(tiny_clip.weights.with_suffix('.json'))!r})\n"
        "from clipseg_cli.__main__ import main\n"
        "main()\n"
    )
    command = ("segment", "in", "-c", "cat,dog", "--heatmaps", *tiny_clip.options, "--templates", "single")
    return lambda: warm("run.py", *command)


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


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_any_number_of_ctrl_c_in_the_last_clean_up_is_one_line(warm):
    """Each step of the end is interrupted twice; `os._exit` is reached all the same."""
    code = (
        "import contextlib, signal, sys\n"
        "import clipseg_cli.__main__ as process\n"
        "import clipseg_cli.cli.main, clipseg_cli.utils.files as files\n"
        "def stormy(do):\n"
        "    left = [1, 2]\n"
        "    def step(*args):\n"
        "        if left and left.pop(): raise KeyboardInterrupt\n"
        "        return do(*args)\n"
        "    return step\n"
        "clipseg_cli.cli.main.main = stormy(lambda: None)\n"
        "files.discard_unfinished = stormy(files.discard_unfinished)\n"
        "process.signal.signal = stormy(lambda *_: None)\n"
        "sys.stdout.flush = stormy(lambda: None)\n"
        "write = sys.stderr.write\n"
        "def interrupted(text):\n"
        "    write(text)\n"
        "    raise KeyboardInterrupt\n"
        "sys.stderr.write = interrupted\n"
        "process.main()\n"
    )
    process = warm("-c", code)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"Error: interrupted\n")


def test_ctrl_c_while_the_options_are_parsed_is_one_line(cli, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.core.TyperGroup.parse_args", interrupted)
    done = cli("--version")
    assert (done.code, done.out, done.err) == (130, "", "Error: interrupted\n")


def test_the_installed_command_is_the_process_that_ends_well():
    scripts = Path(__file__).parents[1] / "pyproject.toml"
    assert 'clipseg = "clipseg_cli.__main__:main"' in scripts.read_text()


# Streams that are closed or take nothing


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", ["models --methods --json", "models --methods", "segment --help", ""])
def test_a_full_standard_output_is_one_sentence(warm_server, process_env, tmp_path, words):
    script = tmp_path / "clipseg"
    script.write_text(warm_script(warm_server, "-m clipseg_cli"))
    is_full_for(["sh", str(script), *words.split()], process_env)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_nobody_hears_the_version_on_a_full_standard_output(process_env):
    is_full_for([sys.executable, "-m", "clipseg_cli", "--version"], process_env)


def is_full_for(command, env):
    """A command whose standard output takes nothing says so in one sentence."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"Error: cannot write to standard output: No space left on device\n"


@pytest.mark.skipif(os.name == "nt", reason="shell")
@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ("--version >&-", 0),
        ("--version 2>&-", 0),
        ("segment - -c cat <&-", 2),
        ("segment gone.jpg -c cat -o x --protocol y 2> /dev/full", 2),
        ("segment gone.jpg -c cat -o x --protocol y >&- 2>&-", 2),
    ],
)
def test_closed_streams_change_nothing_but_what_is_heard(process_env, shell, code):
    command = f'"{sys.executable}" -m clipseg_cli {shell}'
    done = subprocess.run(["bash", "-c", command], env=process_env, capture_output=True, check=False)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
