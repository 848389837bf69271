"""The files of a data set on the disk: from the patterns of a layout to names and paths."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from clipseg_cli.data.image_files import EXTENSIONS, find_images
from clipseg_cli.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clipseg_cli.data.datasets._layout import Layout

ANY_IMAGE = ".*"


class Pattern(NamedTuple):
    """A pattern of a layout, for one split: all files are `folder/NAMEending`.

    Attributes:
        folder: below the root; "" for the root itself.
        ending: what follows the name ("_labelTrainIds.png"); `.*` for any kind of image.
    """

    folder: str
    ending: str

    @classmethod
    def of(cls, pattern: str, folder: str) -> Pattern:
        """Fill in the split's folder."""
        before, after = pattern.replace("{split}", folder).split("{name}")
        return cls(before.rstrip("/"), after)

    def name_of(self, file: str) -> str | None:
        """The name in a path below the folder; None where the path does not fit."""
        if self.ending == ANY_IMAGE:
            stem, suffix = os.path.splitext(file)  # noqa: PTH122  (a Path for each of 118,287 files is slow)
            return stem if suffix.lower() in EXTENSIONS else None
        return file.removesuffix(self.ending) if file.endswith(self.ending) else None

    def path(self, root: Path, name: str) -> Path:
        """Where the file of one name is expected."""
        ending = ".png" if self.ending == ANY_IMAGE else self.ending
        return root / self.folder / f"{name}{ending}"


class Tree:
    """One root under one layout; every folder is listed once.

    Args:
        root: an existing folder.
        layout: how to read it.
    """

    def __init__(self, root: Path, layout: Layout) -> None:
        self.root, self.layout = root, layout
        self.notes: list[str] = []
        self._listed: dict[str, list[str]] = {}

    def images(self, folders: tuple[str, ...]) -> dict[str, Path]:
        """Name -> image, sorted by name, of the given splits' folders.

        Raises:
            DatasetError: a folder cannot be listed.
        """
        if self.layout.images.endswith(ANY_IMAGE):
            return self._images_of_any_kind()
        return {n: self.root / file for n, file in self.files(self.layout.images, folders).items()}

    def files(self, pattern: str, folders: tuple[str, ...]) -> dict[str, str]:
        """Name -> file of one pattern, as text below the root: a Path for each of 118,287 takes a second.

        Raises:
            DatasetError: a folder cannot be listed, or two splits use the same name.
        """
        found: dict[str, str] = {}
        for part in dict.fromkeys(Pattern.of(pattern, folder) for folder in folders):
            prefix = f"{part.folder}/" if part.folder else ""
            here: dict[str, str] = {}
            # Of two kinds of image with one name the PNG is the label.
            for file in sorted(self._list(part.folder), key=lambda file: (not file.endswith(".png"), file)):
                if (name := part.name_of(file)) is not None:
                    here.setdefault(name, prefix + file)
            if twice := here.keys() & found.keys():
                first = found[min(twice)]
                raise DatasetError(
                    f"{self.root}: {here[min(twice)]} has the name of {first}",
                    hint="take one split at a time",
                )
            found.update(here)
        return dict(sorted(found.items()))

    def _images_of_any_kind(self) -> dict[str, Path]:
        base = self.root / Pattern.of(self.layout.images, "").folder
        sources, failures = find_images([str(base)], twins="suffix")
        self.notes += [failure.message for failure in failures]
        found = {str(source.relative): source.path for source in sources if source.path is not None}
        return dict(sorted(found.items()))

    def _list(self, folder: str) -> list[str]:
        if folder not in self._listed:
            self._listed[folder] = list(files_below(self.root / folder))
        return self._listed[folder]


def files_below(folder: Path) -> Iterator[str]:
    """Relative paths of the visible files at all levels, sorted in each folder; none if it is missing.

    Raises:
        DatasetError: a folder cannot be listed.
    """

    def unreadable(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise DatasetError(
                f"cannot read the folder {error.filename}: {error.strerror or error}"
            ) from error

    seen = {os.path.realpath(folder)}
    for here, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        # Linked folders are how data sets are shared; remembering them keeps a link to a parent finite.
        real = {name: os.path.realpath(Path(here, name)) for name in folders if not name.startswith(".")}
        folders[:] = sorted(name for name in real if real[name] not in seen)
        seen.update(real[name] for name in folders)
        prefix = "" if here == str(folder) else PurePosixPath(Path(here).relative_to(folder)).as_posix() + "/"
        yield from (prefix + name for name in sorted(files) if not name.startswith("."))
