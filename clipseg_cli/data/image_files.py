"""Which pictures a command line means: files, folders, globs, standard input; and where their outputs go."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from clipseg_cli.errors import ImageError, did_you_mean
from clipseg_cli.types import ImageSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXTENSIONS = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
"""What counts as a picture in a folder; a file named on the command line is tried whatever it is called."""

STDIN = "-"

ROOM_FOR_ENDINGS = 16
"""Bytes that `outputs/` may add to the name of a picture (".png", "_overlay.jpg")."""

_MAX_NAME = 255  # bytes, on all common file systems


@dataclass
class _Found:
    """A picture with the freedom its output name still has.

    Attributes:
        path: the file, None for standard input.
        base: folder that `inner` starts from, absolute.
        inner: the file below `base`.
        depth: how many folders above `base` the output name repeats.
        suffix: whether the output name keeps the suffix.
        number: 0, or what makes the last ambiguity go away.
    """

    path: Path | None
    base: PurePosixPath
    inner: PurePosixPath
    depth: int = 0
    suffix: bool = False
    number: int = 0

    def relative(self) -> PurePosixPath:
        """Output name without suffix; relative, and without '..' because `base` is absolute and normal."""
        above = self.base.parts[1:]  # without the root
        stem = self.inner.name if self.suffix else self.inner.stem
        # The stem of '...jpg' is '..', which would climb out of the output folder.
        stem = stem if stem.strip(".") else "image"
        number = f"-{self.number}" if self.number else ""
        while len(os.fsencode(stem + number)) > _MAX_NAME - ROOM_FOR_ENDINGS:
            stem = stem[:-1]
        stem += number
        return PurePosixPath(*above[len(above) - min(self.depth, len(above)) :], *self.inner.parts[:-1], stem)

    def key(self) -> str:
        """Equal for names that some file system takes for the same one."""
        return unicodedata.normalize("NFC", str(self.relative())).casefold()

    def twin(self) -> tuple[str, str]:
        """Equal for pictures that only their suffix tells apart."""
        return str(self.base / self.inner.parent), self.inner.stem.casefold()

    def widen(self) -> bool:
        """Repeat one more folder in the name; False if there is none left."""
        if self.path is None or self.depth >= len(self.base.parts) - 1:
            return False
        self.depth += 1
        return True


def find_images(
    inputs: Sequence[str], *, exclude: Sequence[Path] = ()
) -> tuple[list[ImageSource], list[ImageError]]:
    """All pictures that `inputs` mean, in a fixed order, each once, and what could not be found.

    Args:
        inputs: files, folders (all levels, sorted, hidden ones and `.part` leftovers skipped), globs that the
            shell did not expand, `-` for standard input. A file given by name is taken whatever its suffix.
        exclude: folders that are not walked into when they lie below an input folder, and refused when they
            are one: the output folder.

    Returns:
        (sources, failures). `source.relative` is the file's name for a file, its path within the folder for a
        folder; where two would write the same output, the suffix or parent folders are kept to tell them
        apart (`x.jpg` and `x.png`; `a/x` and `b/x`). It never leads out of the output folder.
        A failure is a missing file, a folder without pictures, a glob without match, an unreadable folder.
    """
    skip = {os.path.realpath(folder) for folder in exclude}
    found: dict[str, _Found] = {}  # by absolute path: the same file twice is one picture
    failures: list[ImageError] = []
    for text in inputs:
        try:
            for item in _expand(text, skip, failures):
                found.setdefault(STDIN if item.path is None else str(item.base / item.inner), item)
        except ImageError as error:
            failures.append(error)
    _tell_apart(list(found.values()))
    return [ImageSource(item.path, item.relative()) for item in found.values()], failures


def _expand(text: str, skip: set[str], failures: list[ImageError]) -> Iterator[_Found]:
    if text == STDIN:
        yield _Found(None, PurePosixPath("/"), PurePosixPath("stdin"))
    elif not text.strip():
        raise ImageError("an empty file name is not a picture", hint="name files, folders or globs")
    elif os.path.isdir(text):  # noqa: PTH112  (unlike Path.is_dir, never raises on an over-long name)
        yield from _folder(Path(text), skip, failures)
    elif os.path.exists(text):  # noqa: PTH110
        yield _file(Path(text))
    elif os.path.islink(text):  # noqa: PTH114
        raise ImageError(f"{text}: a link that leads nowhere", image=text)
    elif glob.has_magic(text):
        yield from _glob(text, skip, failures)
    else:
        raise ImageError(f"{text}: no such file or folder", hint=_neighbours(Path(text)), image=text)


def _file(path: Path, base: Path | None = None) -> _Found:
    absolute = _absolute(path)
    start = absolute.parent if base is None else _absolute(base)
    return _Found(path, start, absolute.relative_to(start))


def _folder(root: Path, skip: set[str], failures: list[ImageError]) -> Iterator[_Found]:
    def unreadable(error: OSError) -> None:
        reason = error.strerror or str(error)
        folder = str(error.filename)
        failures.append(ImageError(f"{folder}: cannot read this folder: {reason}", image=folder))

    if os.path.realpath(root) in skip:
        hint = "choose another folder with --out, or the next run would take results for pictures"
        raise ImageError(f"{root}: is the output folder itself", hint=hint, image=str(root))
    before = len(failures)
    empty = True
    seen = {os.path.realpath(root)}
    for folder, folders, files in os.walk(root, onerror=unreadable, followlinks=True):
        # Linked folders are how data sets are shared; remembering them keeps a link to a parent finite.
        real = {name: os.path.realpath(Path(folder, name)) for name in folders if _is_visible(name)}
        folders[:] = sorted(name for name in real if real[name] not in seen | skip)
        seen.update(real[name] for name in folders)
        for name in sorted(files):
            if _is_picture(name):
                empty = False
                yield _file(Path(folder, name), root)
    if empty and len(failures) == before:
        known = " ".join(sorted(EXTENSIONS))
        hint = f"looked at all levels for {known}"
        raise ImageError(f"{root}: no pictures in this folder", hint=hint, image=str(root))


def _glob(pattern: str, skip: set[str], failures: list[ImageError]) -> Iterator[_Found]:
    empty = True
    # Like the folder walk and unlike a plain file name, a pattern does not insist on files of other kinds.
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  (Path.glob refuses absolute ones)
        path = Path(match)
        if path.is_file() and _is_picture(path.name):
            empty = False
            yield _file(path)
        elif path.is_dir() and "**" not in pattern and os.path.realpath(path) not in skip:
            try:
                for item in _folder(path, skip, failures):
                    empty = False
                    yield item
            except ImageError:  # a folder without pictures among others that have some
                continue
    if empty:
        hint = "quote a pattern to let clipseg expand it"
        raise ImageError(f"{pattern}: no picture matches", hint=hint, image=pattern)


def _tell_apart(found: list[_Found]) -> None:
    """Give every picture an output name of its own, changing only those that clash."""
    while clashes := _clashes(found):
        moved = False
        for group in clashes:
            twins = defaultdict(list)
            for item in group:
                twins[item.twin()].append(item)
            for same in twins.values():
                for item in same if len(same) > 1 else ():
                    moved |= not item.suffix
                    item.suffix = True
            if len(twins) > 1:
                widened = [item.widen() for item in group]  # all of them, not the first that can
                moved |= any(widened)
        if not moved:
            taken = {item.key() for item in found}
            for item in (item for group in clashes for item in group[1:]):
                while item.key() in taken:
                    item.number += 1
                taken.add(item.key())


def _clashes(found: list[_Found]) -> list[list[_Found]]:
    groups = defaultdict(list)
    for item in found:
        groups[item.key()].append(item)
    return [group for group in groups.values() if len(group) > 1]


def _neighbours(path: Path) -> str:
    """A hint with file names like the one that was not found; empty if there are none."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if _is_picture(entry.name)]
    except (OSError, ValueError):
        return ""
    return did_you_mean(path.name, names)


def _absolute(path: Path) -> PurePosixPath:
    # Not resolve(): a link is a picture with a name of its own.
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  (Path.absolute keeps '..')
    return PurePosixPath("/", *absolute.parts[1:])


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".part")


def _is_picture(name: str) -> bool:
    return _is_visible(name) and os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122
