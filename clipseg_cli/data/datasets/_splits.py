"""Which images a split means: a folder, a list that comes with the data set, or a list of the user's own."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from clipseg_cli.data.classes import is_list_file, numbered_lines
from clipseg_cli.data.image_files import EXTENSIONS
from clipseg_cli.errors import DatasetError, UsageError, did_you_mean
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipseg_cli.data.datasets._layout import Layout
    from clipseg_cli.data.datasets._tree import Tree

ALL = "all"


class Split(NamedTuple):
    """A split of one data set.

    Attributes:
        name: as the user or the layout calls it.
        folders: of the layout's splits, in which its images may lie.
        file: the list of its names; None where all images in the folders belong to it.
    """

    name: str
    folders: tuple[str, ...]
    file: Path | None


def find_split(spec: str, root: Path, layout: Layout) -> Split:
    """What `--split` means: a name of the layout, "all", or else the path of a list; a name wins over a file.

    Raises:
        UsageError: none of them.
    """
    if spec in layout.splits:
        folder = layout.splits[spec]
        file = root / layout.split_file.format(split=folder) if layout.split_file else None
        return Split(spec, (folder,), file)
    everywhere = tuple(layout.splits.values())
    if spec == ALL:
        return Split(ALL, everywhere, None)
    if is_list_file(spec) or os.path.isdir(spec):  # noqa: PTH112  (never raises on an over-long name)
        return Split(spec, everywhere, Path(spec))
    known = [*layout.splits, ALL]
    hint = did_you_mean(spec, known)
    raise UsageError(
        f"unknown split '{spec}' of {layout.title}",
        hint=f"{hint or 'known: ' + ', '.join(known)}; or a text file with one image name a line",
    )


def images_of(split: Split, tree: Tree) -> dict[str, Path]:
    """Name -> image, in the order of the list, or sorted.

    Raises:
        DatasetError: the list is missing, empty, repeats a name, leads out of the data set, or names images
            that do not exist.
    """
    images = tree.images(split.folders)
    if split.file is None:
        return images
    chosen: dict[str, Path] = {}
    lines: dict[str, int] = {}
    missing: list[str] = []
    names = read_names(split.file)
    for number, text in names:
        name = _resolve(text, images, tree.layout)
        if name is None:
            missing.append(text)
        elif name in lines:
            raise DatasetError(
                f"{split.file}:{number}: '{text}' appears twice (first in line {lines[name]})",
                hint="name every image once",
            )
        else:
            lines[name], chosen[name] = number, images[name]
    if missing:
        folder = tree.root / tree.layout.images.split("{")[0]
        raise DatasetError(
            f"{split.file}: {len(missing):,} of its {len(names):,} names are not images in {folder}/: "
            + listed(missing),
            hint="names are relative to the image folder, without suffix; is the download complete?",
        )
    return chosen


def read_names(file: Path) -> list[tuple[int, str]]:
    """The names in a list with their line numbers; in VOC's lists a 1, 0 or -1 may follow a name.

    Raises:
        DatasetError: no such file, not text, empty, or a name that leads out of the data set.
    """
    names = []
    for number, line in numbered_lines(file, DatasetError):
        first, *rest = line.split()
        name = (first if rest in (["1"], ["0"], ["-1"]) else line).replace("\\", "/")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or name[1:3] == ":/":
            raise DatasetError(
                f"{file}:{number}: '{line}' leads out of the data set",
                hint="write names relative to the image folder, such as 2007_000033",
            )
        names.append((number, str(path)))
    if not names:
        raise DatasetError(f"{file}: no image names in this file", hint="write one name a line")
    return names


def without_suffix(name: str) -> str:
    """The name without the suffix of an image; any other suffix is part of it."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in EXTENSIONS else name


def _resolve(text: str, images: Mapping[str, Path], layout: Layout) -> str | None:
    """The image that a line means, with or without its suffix and the folder of its split."""
    ending = layout.images.split("{name}")[1]
    candidates = [text, text.removesuffix(ending), text.removesuffix(PurePosixPath(ending).stem)]
    candidates.append(without_suffix(text))
    for candidate in candidates:
        if candidate in images:
            return candidate
        first, _, rest = candidate.partition("/")
        if rest in images and first in layout.splits.values():
            return rest
    return None
