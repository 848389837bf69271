"""What `clipseg segment` prints of results and errors, where only a staged run can show it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clipseg_cli.data.classes import load_classes
from clipseg_cli.errors import ClipsegError, ImageError
from clipseg_cli.types import DecodedImage, ImageSource, Segmentation

# What only a staged run can show


def _result(name: str, *, notes: tuple[str, ...] = ()) -> dict[str, object]:
    classes = load_classes("[red],dog")
    image = DecodedImage(ImageSource(Path(name), Path(name)), np.zeros((2, 2, 3), np.uint8), notes)
    labels, scores = np.array([[0, 0], [0, 1]], np.uint8), np.full((2, 2), 0.5, np.float32)
    return {
        "name": name,
        "segmentation": Segmentation(labels, scores, classes, image),
        "written": {"labels": (Path("out") / f"{name}.png",)},
    }


@pytest.fixture
def staged(cli, monkeypatch, tmp_path):
    """Run `clipseg segment` over given results, or what a callable raises in their place."""
    from clipseg_cli.commands import segment as pipeline

    def run(*items, options=()):
        class Run:
            total, device, model = len(items), "CPU, 1 thread", "tiny / random"
            classes, notes, skipped = load_classes("[red],dog"), ("be careful",), 0
            out = Path("clipseg-out")

            def __init__(self):
                self.finished = []

            def __iter__(self):
                for item in items:
                    if isinstance(item, BaseException):
                        raise item
                    self.finished.append(item["name"])
                    yield pipeline.ImageResult(**item)

        monkeypatch.setattr(pipeline, "prepare_segmentation", lambda config, found: Run())
        (tmp_path / "x").touch()
        return cli("segment", tmp_path / "x", "-c", "[red],dog", *options)

    return run


def test_markup_in_names_is_inert(staged):
    done = staged(_result("[bold]a[/bold].png", notes=("animation: first of 12 frames",)))
    assert "[bold]a[/bold].png" in done.out
    row = next(line for line in done.out.splitlines() if "[red]" in line)
    assert "75.0%" in row and "0.50" in row
    assert "Note: [bold]a[/bold].png: animation: first of 12 frames" in done.err
    assert "Note: be careful" in done.err


def test_control_characters_in_file_names_do_not_reach_the_terminal(staged):
    done = staged(_result("a\x1b[2Jb\udce9.png"))
    assert r"a\x1b[2Jb\udce9.png" in done.out
    assert "\x1b" not in done.out + done.err


def test_interruption_says_what_is_kept(staged):
    done = staged(_result("a.png"), _result("b.png"), KeyboardInterrupt(), _result("c.png"))
    assert done.code == 130
    assert "interrupted after 2 of 4 images; files already written to clipseg-out are kept" in done.err
    assert "Traceback" not in done.err


def test_interruption_while_loading_is_short(cli, monkeypatch, tmp_path):
    from clipseg_cli.commands import segment as pipeline

    def interrupted(config, found):
        raise KeyboardInterrupt

    (tmp_path / "x").touch()

    monkeypatch.setattr(pipeline, "prepare_segmentation", interrupted)
    done = cli("segment", tmp_path / "x", "-c", "cat")
    assert (done.code, done.err) == (130, "Error: interrupted\n")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_names_the_batch_size(staged, error):
    done = staged(error)
    assert done.code == 1
    assert "Error: not enough memory" in done.err
    assert "--batch-size" in done.err


def test_a_bug_keeps_its_traceback(staged):
    with pytest.raises(RuntimeError, match="a bug"):
        staged(RuntimeError("a bug"))


def test_an_error_in_the_middle_ends_the_run(staged):
    done = staged(_result("a.png"), ClipsegError("no space left", hint="free some"))
    assert done.code == 1
    assert "Error: no space left\nHint: free some\n" in done.err


def test_json_of_a_failed_image(staged):
    bad = {"name": "b.png", "error": ImageError("b.png: damaged", hint="copy it again")}
    done = staged(_result("a.png"), bad, options=["--json"])
    document = json.loads(done.out)
    assert document["images"][1] == {"image": "b.png", "error": "b.png: damaged", "hint": "copy it again"}
    assert document["notes"] == ["be careful"]
    assert document["failed"] == 1
