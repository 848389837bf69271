"""Which images a command line means: files, folders, globs, standard input; and where their outputs go."""

from __future__ import annotations

import difflib
import glob
import os
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from clipseg_cli.errors import ImageError
from clipseg_cli.types import ImageSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXTENSIONS = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))
"""What counts as an image in a folder; a file named on the command line is tried whatever it is called."""

STDIN = "-"

ROOM_FOR_ENDINGS = 16
"""Bytes that `outputs/` may add to the name of an image (".png", "_overlay.jpg")."""

_MAX_NAME = 255  # bytes, on all common file systems


@dataclass(frozen=True)
class _Found:
    """An image, and what its outputs may be called.

    Attributes:
        path: the file, None for standard input.
        inner: the file below the folder that was named; its name alone where a file was named.
        given: the whole path as it was named, for `full_names`.
    """

    path: Path | None
    inner: PurePosixPath
    given: PurePosixPath

    def relative(self, *, full: bool = False) -> PurePosixPath:
        """Output name: without suffix, or the whole path with it; never leads out of a folder."""
        inside = self.given if full else self.inner
        stem = inside.name if full else inside.stem
        # The stem of '...jpg' is '..', which would climb out of the output folder.
        stem = stem if stem.strip(".") else "image"
        while len(os.fsencode(stem)) > _MAX_NAME - ROOM_FOR_ENDINGS:
            stem = stem[:-1]
        return PurePosixPath(*inside.parts[:-1], stem)


def find_images(
    inputs: Sequence[str],
    *,
    exclude: Sequence[Path] = (),
    full_names: bool = False,
    twins: Literal["refuse", "suffix"] = "refuse",
) -> tuple[list[ImageSource], list[ImageError]]:
    """All images that `inputs` mean, in a fixed order, each once, and what cannot be used.

    What the outputs of an image are called never depends on which other images there are: otherwise an image that
    is added would take over, or rename, what was made of another one before.

    Args:
        inputs: files, folders (all levels, sorted, hidden ones and `.part` leftovers skipped), globs that the
            shell did not expand, `-` for standard input. A file given by name is taken whatever its suffix.
        exclude: folders that are not walked into when they lie below an input folder, and refused when they
            are one: the output folder.
        full_names: outputs are called by the whole path as it was given, suffix included (`a/x.jpg`), and not by
            the name without suffix, or the path below a folder (`x`).
        twins: images of which two would have one name are refused, or keep their suffix.

    Returns:
        (sources, failures). `source.relative` never leads out of the output folder.
        A failure is a missing file, a folder without images, a glob without match, an unreadable folder, or one
        of several images whose outputs would have one name.
    """
    skip = {os.path.realpath(folder) for folder in exclude}
    found: dict[str, _Found] = {}  # by absolute path: the same file twice is one image
    failures: list[ImageError] = []
    for text in inputs:
        try:
            for item in _expand(text, skip, failures):
                found.setdefault(STDIN if item.path is None else os.path.abspath(item.path), item)  # noqa: PTH100
        except ImageError as error:
            failures.append(error)
    names: dict[str, list[_Found]] = defaultdict(list)
    for item in found.values():
        names[_key(item.relative(full=full_names))].append(item)
    sources = []
    for item in found.values():
        name = item.relative(full=full_names)
        group = names[_key(name)]
        if len(group) > 1 and twins == "suffix":
            name = name.with_name(item.inner.name)
        elif len(group) > 1:
            failures.append(
                _same_name(item, next(other for other in group if other is not item), name, full_names)
            )
            continue
        sources.append(ImageSource(item.path, name))
    return sources, failures


def result_folders(out: Path) -> tuple[Path, ...]:
    """An output folder and those numbered after it, which are not taken for images."""
    numbered = (path for path in out.parent.glob(f"{glob.escape(out.name)}-*") if path.is_dir())
    return (out, *sorted(path for path in numbered if path.name.rpartition("-")[2].isdigit()))


def _key(name: PurePosixPath) -> str:
    """Equal for names that some file system takes for the same one."""
    return unicodedata.normalize("NFC", str(name)).casefold()


def _same_name(item: _Found, other: _Found, name: PurePosixPath, full_names: bool) -> ImageError:
    given = STDIN if item.path is None else str(item.path)
    beside = "standard input" if other.path is None else str(other.path)
    hint = "rename one of them" + (
        "" if full_names else ", or name all outputs by whole paths with --full-names"
    )
    return ImageError(f"{given} and {beside} would both be written as {name}", hint=hint, image=given)


def nothing_left(failures: Sequence[ImageError]) -> ImageError:
    """The one error to show when no input can be used at all."""
    if len(failures) == 1:
        return failures[0]
    listed = "; ".join(failure.message for failure in failures[:3])
    return ImageError(f"none of the {len(failures)} inputs can be used: {listed}", hint=failures[0].hint)


def _expand(text: str, skip: set[str], failures: list[ImageError]) -> Iterator[_Found]:
    if text == STDIN:
        yield _Found(None, PurePosixPath("stdin"), PurePosixPath("stdin"))
    elif not text.strip():
        raise ImageError("an empty file name is not an image", hint="name files, folders or globs")
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
    inner = PurePosixPath(absolute.name) if base is None else absolute.relative_to(_absolute(base))
    # Where a path begins does not belong to a name: neither a root nor steps upwards.
    parts = [part for part in path.parts if part not in (path.anchor, "..")]
    return _Found(path, inner, PurePosixPath(*parts) if parts else inner)


def _folder(root: Path, skip: set[str], failures: list[ImageError]) -> Iterator[_Found]:
    def unreadable(error: OSError) -> None:
        reason = error.strerror or str(error)
        folder = str(error.filename)
        failures.append(ImageError(f"{folder}: cannot read this folder: {reason}", image=folder))

    if os.path.realpath(root) in skip:
        hint = "choose another folder with --out, or the next run would take results for images"
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
            if _is_image(name):
                empty = False
                yield _file(Path(folder, name), root)
    if empty and len(failures) == before:
        known = " ".join(sorted(EXTENSIONS))
        hint = f"looked at all levels for {known}"
        raise ImageError(f"{root}: no images in this folder", hint=hint, image=str(root))


def _glob(pattern: str, skip: set[str], failures: list[ImageError]) -> Iterator[_Found]:
    empty = True
    # Like the folder walk and unlike a plain file name, a pattern does not insist on files of other kinds.
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  (Path.glob refuses absolute ones)
        path = Path(match)
        if path.is_file() and _is_image(path.name):
            empty = False
            yield _file(path)
        elif path.is_dir() and "**" not in pattern and os.path.realpath(path) not in skip:
            try:
                for item in _folder(path, skip, failures):
                    empty = False
                    yield item
            except ImageError:  # a folder without images among others that have some
                continue
    if empty:
        hint = "quote a pattern to let clipseg expand it"
        raise ImageError(f"{pattern}: no image matches", hint=hint, image=pattern)


def _neighbours(path: Path) -> str:
    """A hint for a file that was not found: names like it, or what else a lone word may have been meant for."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if _is_image(entry.name)]
    except (OSError, ValueError):
        names = []
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
    if not path.suffix and len(path.parts) == 1:
        return "if it is a word: words are joined by commas, as in --classes cat,dog"
    return ""


def _absolute(path: Path) -> PurePosixPath:
    # Not resolve(): a link is an image with a name of its own.
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  (Path.absolute keeps '..')
    return PurePosixPath("/", *absolute.parts[1:])


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".part")


def _is_image(name: str) -> bool:
    return _is_visible(name) and os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122
