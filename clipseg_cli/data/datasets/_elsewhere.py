"""Images that no folder of this machine holds: a text file that lists them, or a folder behind an address."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from clipseg_cli.data.addresses import MARK, files_behind, is_address, open_address, without_scheme
from clipseg_cli.data.classes import load_classes
from clipseg_cli.data.image_files import EXTENSIONS
from clipseg_cli.errors import DatasetError, UsageError
from clipseg_cli.types import Dataset, ImageSource, RemoteSource, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clipseg_cli.data.datasets._benchmark import Purpose

LISTS = (".txt", ".lst", ".list")
"""What the name of a list of images ends in."""


def is_elsewhere(root: str) -> bool:
    """Whether a data set is named by an address, or by a list of images."""
    return is_address(root) or (root.endswith(LISTS) and not Path(root).is_dir())


def open_elsewhere(
    root: str, *, benchmark: str | None, split: str | None, classes: str, background: str, purpose: Purpose
) -> Dataset:
    """The images of a list, in its order, or of a folder behind an address, sorted by name.

    Args:
        root: as `is_elsewhere` knows it.
        benchmark, split: neither a list nor an address has any.
        classes, background: as `load_classes` takes them.
        purpose: "label"; there is no ground truth to score with.

    Raises:
        DatasetError: no such list or address, no image in it, or two that would have one name.
        UsageError: options that need a data set on the disk.
    """
    named = {"--benchmark": benchmark, "--split": split}
    for flag, value in named.items():
        if value is not None:
            raise UsageError(
                f"{flag} needs a data set on the disk, and {root} is none", hint=f"leave out {flag}"
            )
    if purpose == "score":
        raise DatasetError(f"{root} has no ground truth", hint="scoring needs the folder of a data set")
    listed = root.endswith(LISTS)
    sources = tuple(_of_list(root) if listed else _of_folder(root))
    if not sources:
        raise DatasetError(f"{root}: no images in this {'list' if listed else 'folder'}")
    if not classes:
        raise DatasetError(f"{root}: nothing names the classes of these images", hint="add --classes cat,dog")
    return Dataset(
        name="list" if listed else "address",
        title="a list of images" if listed else "a folder of images",
        root=Path(root),
        benchmark=None,
        split="",
        classes=load_classes(classes, background=background),
        samples=tuple(map(Sample, sources)),
        address=root if is_address(root) else "",
    )


def _of_list(root: str) -> Iterator[ImageSource]:
    with open_address(root) as file:
        try:
            lines = file.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{root}: this is not UTF-8 text", hint="save the file as UTF-8") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        source = _listed(root, text)
        if source.name in seen:
            raise DatasetError(
                f"{root}:{number}: '{text}' would have the same name as line {seen[source.name]}: {source.name}",
                hint="leave one of them out, or rename it",
            )
        seen[source.name] = number
        yield source


def _listed(root: str, text: str) -> ImageSource:
    """An image of a list; without a scheme it lies beside the list.

    Args:
        root: the list.
        text: a line of it.
    """
    text = without_scheme(text)
    if is_address(text):
        return _remote(text, PurePosixPath(text.partition("::")[0].partition(MARK)[2]))
    if is_address(root) and not text.startswith("/"):
        return _remote(f"{root.rpartition('/')[0]}/{text}", PurePosixPath(text))
    path = Path(root).parent / text
    inside = PurePosixPath(os.path.normpath(text))
    if inside.is_absolute() or ".." in inside.parts:
        inside = PurePosixPath(*path.resolve().parts[1:])
    return ImageSource(path, _name(inside))


def _of_folder(root: str) -> Iterator[ImageSource]:
    seen: dict[PurePosixPath, str] = {}
    for inside, address in files_behind(root):
        path = PurePosixPath(inside)
        if path.suffix.lower() not in EXTENSIONS or any(part.startswith(".") for part in path.parts):
            continue
        source = _remote(address, path)
        if source.relative in seen:
            raise DatasetError(
                f"{address} and {seen[source.relative]} would have the same name: {source.name}",
                hint="rename one of them, or name the images in a list",
            )
        seen[source.relative] = address
        yield source


def _remote(address: str, inside: PurePosixPath) -> RemoteSource:
    safe = PurePosixPath(*(part for part in inside.parts if part not in ("/", "..")))
    return RemoteSource(None, _name(safe), inside.name, address=address)


def _name(inside: PurePosixPath) -> PurePosixPath:
    """What an image is called in a run: its path without the ending of an image."""
    return inside.with_suffix("") if inside.suffix.lower() in EXTENSIONS else inside
