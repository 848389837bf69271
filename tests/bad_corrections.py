"""A run, correct files of corrections for it, and how a wrong one is refused."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from annotated import result_of, shapes, write
from corrected import contents, labelled
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


NAMES = ("background", "cat", "red car", "dog")
ONE = shapes()
TWO = np.roll(shapes(), 7, 1)


def result(labels: np.ndarray, name: str) -> Any:
    return result_of(labels, name, names=NAMES)


@pytest.fixture(name="run")
def run_fixture(tmp_path) -> Path:
    return labelled(tmp_path / "run", [result(ONE, "one.jpg"), result(TWO, "in/two.jpg")])


@pytest.fixture(name="out")
def out_fixture(tmp_path) -> Path:
    return tmp_path / "out"


def made(format_: str, out: Path, **options: Any) -> list[Path]:
    """A correct file of corrections of both images."""
    return write(format_, [result(TWO, "one.jpg"), result(ONE, "in/two.jpg")], out, **options)


def edited(path: Path, edit: Callable[[Any], Any]) -> Path:
    """The same JSON, changed in place."""
    data = json.loads(path.read_text("utf-8"))
    found = edit(data)
    path.write_text(json.dumps(data if found is None else found), "utf-8")
    return path


def refused(cli, run: Path, *args: object, said: str | tuple[str, ...]) -> None:
    """The command ends with 1, says all that, and leaves every byte as it is."""
    before = contents(run)
    done = cli("import", run, *args)
    assert done.code == 1, done.err
    text = " ".join(done.err.split())
    for part in (said,) if isinstance(said, str) else said:
        assert part in text, text
    assert "Error: " in text and "Traceback" not in text and not done.stdout
    assert contents(run) == before


def set_at(*way: Any) -> Callable[[Any], None]:
    """Put the last value where the others lead."""

    def edit(data: Any) -> None:
        *keys, last, value = way
        for key in keys:
            data = data[key]
        data[last] = value

    return edit


def without(*way: Any) -> Callable[[Any], None]:
    """Take away what is there."""

    def edit(data: Any) -> None:
        *keys, last = way
        for key in keys:
            data = data[key]
        del data[last]

    return edit


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
