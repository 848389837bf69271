"""Images are found: folders, globs, standard input, and a name for each output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from image_kinds import (
    UPRIGHT,
    save,
)

from clipseg_cli.data.image_files import find_images
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ImageError

if TYPE_CHECKING:
    from clipseg_cli.types import ImageSource


def relatives(sources: list[ImageSource]) -> list[str]:
    return [str(s.relative) for s in sources]


# --- finding ---------------------------------------------------------------------------------------------


def test_folder_keeps_its_tree_and_order(tmp_path):
    for name in ("b.jpg", "sub/deep/c.PNG", "a.webp", "sub/d.TIFF"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in (".hidden.jpg", "notes.txt", ".a.png.x.part", ".cache/e.jpg", "sub/f.jpg.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sources, failures = find_images([str(tmp_path)])
    assert relatives(sources) == ["a", "b", "sub/d", "sub/deep/c"]
    assert not failures


def test_file_glob_and_stdin(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    (tmp_path / "c.txt").touch()
    monkeypatch.chdir(tmp_path)
    sources, failures = find_images(["*", "-", "./a.png"])
    assert relatives(sources) == ["a", "b", "stdin"]  # a.png given twice is taken once
    assert sources[-1].path is None
    assert not failures


def test_glob_characters_in_a_real_name(tmp_path):
    path = save(tmp_path / "photo[1].png")
    sources, failures = find_images([str(path)])
    assert relatives(sources) == ["photo[1]"]
    assert not failures


def test_recursive_glob(tmp_path):
    save(tmp_path / "p/x.png")
    save(tmp_path / "p/q/x.png")
    sources, _ = find_images([str(tmp_path / "**/*.png")])
    assert not sources  # both files are named by the pattern, and both are called x
    sources, _ = find_images([str(tmp_path / "**/*.png")], full_names=True)
    assert [name.rpartition("/p/")[2] for name in sorted(relatives(sources))] == ["q/x.png", "x.png"]


def test_unknown_suffix_is_tried_when_named(tmp_path):
    path = tmp_path / "scan.dat"
    save(tmp_path / "scan.png").rename(path)
    (only,), failures = find_images([str(path)])
    assert not failures
    assert np.array_equal(read_image(only).pixels, UPRIGHT)


@pytest.mark.parametrize("given", ["missing.jpg", "empty", "*.jpg", "", "x" * 5000, "nul\0byte.jpg"])
def test_what_cannot_be_found_does_not_stop_the_others(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "good.png")
    (tmp_path / "empty").mkdir()
    sources, failures = find_images([given, "good.png"])
    assert relatives(sources) == ["good"]
    (error,) = failures
    assert isinstance(error, ImageError)
    assert given in error.message


def test_missing_file_names_its_neighbour(tmp_path):
    save(tmp_path / "holiday.png")
    _, (error,) = find_images([str(tmp_path / "holyday.png")])
    assert "holiday.png" in error.hint


@pytest.mark.parametrize(
    "names",
    [
        ["a/x.jpg", "b/x.jpg"],
        ["a/x.jpg", "a/x.png"],
        ["a/x.jpg", "a/x.png", "b/x.jpg", "b/x.png"],
        ["a/x.jpg", "a/x.png", "a/x.jpg.png"],
        ["p/a/x.jpg", "q/a/x.jpg", "a/x.jpg"],
        ["a/x.jpg", "a/X.JPG", "a/X.jpg", "a/x-1.jpg"],
        ["a/...jpg", "a/..jpg", "a/....png", "a/image.png"],
        ["stdin.png", "-"],
        ["a/x", "x/a.jpg", "x/a"],
    ],
)
@pytest.mark.parametrize("full_names", [False, True])
def test_names_depend_on_no_neighbour_and_none_is_used_twice(names, full_names, tmp_path):
    for name in names:
        if name != "-":
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
    inputs = [n if n == "-" else str(tmp_path / n) for n in names]
    sources, failures = find_images(inputs, full_names=full_names)
    assert len(sources) + len(failures) == len(names)
    alone = {n: relatives(find_images([n], full_names=full_names)[0]) for n in inputs}
    for source in sources:
        assert [str(source.relative)] == alone["-" if source.path is None else str(source.path)]
    found = relatives(sources)
    assert len({r.casefold() for r in found}) == len(sources)
    for failure in failures:
        assert "would both be written as" in failure.message
    for relative in (s.relative for s in sources):
        assert not relative.is_absolute()
        assert ".." not in relative.parts
        assert (tmp_path / "out" / relative).resolve().parent.is_relative_to(tmp_path / "out")


def test_a_picture_that_is_added_does_not_rename_the_output_of_another(tmp_path):
    save(tmp_path / "x.jpg")
    assert relatives(find_images([str(tmp_path)])[0]) == ["x"]
    save(tmp_path / "x.png")
    sources, failures = find_images([str(tmp_path)])
    assert not sources and len(failures) == 2 and "--full-names" in failures[0].hint
    sources, failures = find_images([str(tmp_path)], full_names=True)
    assert not failures
    assert [s.relative.name for s in sources] == ["x.jpg", "x.png"]


def test_two_folders_with_the_same_tree(tmp_path, monkeypatch):
    for name in ("2020/sub/x.png", "2021/sub/x.png", "2021/y.png"):
        save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    sources, failures = find_images(["2020", "2021"])
    assert relatives(sources) == ["y"] and len(failures) == 2
    sources, failures = find_images(["2020", "2021/"], full_names=True)
    assert sorted(relatives(sources)) == ["2020/sub/x.png", "2021/sub/x.png", "2021/y.png"]
    assert not failures
    assert relatives(find_images(["../" + tmp_path.name + "/2020"], full_names=True)[0]) == [
        f"{tmp_path.name}/2020/sub/x.png"
    ]


def test_output_folder_and_link_loops_are_not_walked(tmp_path):
    save(tmp_path / "x.png")
    save(tmp_path / "clipseg-out/x_overlay.png")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    sources, _ = find_images([str(tmp_path)], exclude=[tmp_path / "clipseg-out"])
    assert relatives(sources) == ["x"]


def test_unreadable_folder_is_named(tmp_path, monkeypatch):
    save(tmp_path / "x.png")
    locked = tmp_path / "locked"
    locked.mkdir()
    scandir = __import__("os").scandir

    def refuse(path):
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    sources, (error,) = find_images([str(tmp_path)])
    assert relatives(sources) == ["x"]
    assert "locked" in error.message
