"""The command line: exit codes, what goes to stdout and what to stderr, and one clear sentence per mistake."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clipseg_cli import __version__
from clipseg_cli.cli import console

# The frame: help, version, usage


@pytest.mark.parametrize(
    "args", [[], ["--help"], ["--version"], ["segment", "--help"], ["segment"], ["models", "--help"]]
)
def test_help_and_version_do_not_load_torch(args, process_env):
    code = (
        "import sys\n"
        "from clipseg_cli.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'open_clip', 'cv2', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, env=process_env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(cli):
    assert cli("--version").out == f"clipseg {__version__}\n"


def test_module_runs_as_the_command(run_cli):
    done = run_cli("--version")
    assert (done.code, done.out) == (0, f"clipseg {__version__}\n")


def test_no_arguments_show_the_help(cli):
    done = cli()
    assert done.code == 0
    assert "segment" in done.out and "models" in done.out


@pytest.mark.parametrize("columns", [80, 120])
def test_help_has_panels_and_examples(cli, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    done = cli("segment", "--help")
    for panel in ("Words", "Model", "Method", "Inference", "Output", "Examples"):
        assert panel in done.out
    assert "clipseg segment photo.jpg --classes batman,joker" in done.out
    assert max(map(len, done.out.splitlines())) <= columns


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["segmnt"], "No such command 'segmnt'"),
        (["segment", "x.png"], "Missing option '--classes'"),
        (["segment", "-c", "cat"], "Missing argument 'IMAGES"),
        (["segment", "x.png", "-c", "cat", "--background-threshold", "1.5"], "1.5 is not between 0 and 1"),
        (["segment", "x.png", "-c", "cat", "--background-threshold", "nan"], "nan is not between 0 and 1"),
        (["segment", "x.png", "-c", "cat", "--prompt-denoising", "-1"], "-1.0 is not between 0 and 1"),
        (["segment", "x.png", "-c", "cat", "--batch-size", "0"], "0 is not between 1 and 4096"),
        (["segment", "x.png", "-c", "cat", "--window", "-8"], "-8 is not between 0 and 16384"),
        (["segment", "x.png", "-c", "cat", "--short-side", "big"], "'--short-side'"),
        (["segment", "x.png", "-c", "cat", "--protocol", "maskclp"], "Hint: did you mean 'maskclip'"),
        (["segment", "x.png", "-c", "cat", "--precision", "fp23"], "Hint: did you mean 'fp32'?"),
        (["segment", "-", "-c", "cat", "--json"], "Error: - writes the label PNG to standard output"),
        (["segment", "-", "x.png", "-c", "cat"], "cannot be mixed with others"),
    ],
)
def test_usage_mistakes_exit_with_2(cli, args, said):
    done = cli(*args)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("--method", "maskclp", "did you mean 'maskclip'"),
        ("--templates", "imagnet", "did you mean 'imagenet'?"),
        ("--device", "cpuu", "did you mean 'cpu'?"),
        ("--model", "ViT-B-61", "ViT-B-16"),
    ],
)
def test_unknown_names_exit_with_2_and_name_the_nearest(
    cli, make_image, tmp_path, monkeypatch, option, value, hint
):
    monkeypatch.chdir(tmp_path)
    done = cli("segment", make_image(tmp_path / "x.png"), "-c", "cat", option, value)
    assert done.code == 2
    assert f"'{value}'" in done.err
    assert hint in done.err


def test_a_closed_pipe_ends_quietly(process_env):
    command = [sys.executable, "-m", "clipseg_cli", "segment", "--help"]
    process = subprocess.Popen(command, env=process_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert err == b""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.8 s"), (9.97, "10 s"), (42.4, "42 s"), (187, "3:07 min"), (7380, "2:03:00 h")],
)
def test_times_are_short(seconds, text):
    assert console.format_seconds(seconds) == text


def test_every_command_shows_an_example(cli):
    for command in ("segment", "models"):
        assert f"clipseg {command} " in cli(command, "--help").out.split("Examples")[1]
