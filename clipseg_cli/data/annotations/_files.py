"""Files and archives of strangers: nothing is unpacked, and nothing is read that is larger than it may be."""

from __future__ import annotations

import io
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.data.opening import open_image
from clipseg_cli.errors import AnnotationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MOST_BYTES = 1 << 30
"""Of one file of text, or of one text in an archive."""

MOST_MEMBERS = 500_000
_HEADROOM = 1 << 20
"""Bytes beside its pixels that an image in an archive may have."""


def read_limited(path: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file.

    Raises:
        AnnotationError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > most:
        raise AnnotationError(f"{path} is larger than {most >> 20:,} MB", hint="divide it into several files")
    return data


class Archive:
    """The members of a zip, by name.

    Attributes:
        names: of all files in it, in their order.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        self._members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        self.names = list(self._members)

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        """The bytes of a member, never more than `most`, whatever the archive says.

        Raises:
            AnnotationError: no such member, a damaged one, or a larger one.
        """
        info = self._members.get(name)
        if info is None:
            raise AnnotationError(f"{self._path} lacks {name}", hint="export it again")
        if info.flag_bits & 1:
            raise AnnotationError(f"{name} in {self._path} is encrypted", hint="export it without a password")
        try:
            with self._archive.open(info) as file:
                data = file.read(most + 1)
                too_large = len(data) > most
                while not too_large and file.read(1 << 16):  # to the end, where its checksum is compared
                    too_large = True
        except NotImplementedError as error:  # zipfile's, of a compression that it does not know
            raise AnnotationError(
                f"{name} in {self._path} is packed in a way that Python cannot read: {error}",
                hint="export it again as a plain zip",
            ) from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise AnnotationError(
                f"{name} in {self._path} is damaged: {error}", hint="export it again"
            ) from error
        if too_large:
            raise AnnotationError(f"{name} in {self._path} unpacks to more than {most:,} bytes")
        return data


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """A zip whose names have been looked at.

    Raises:
        AnnotationError: no zip, or one with names that lead out of it, that stand twice, or that are too many.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}") from error
    except NotImplementedError as error:  # zipfile's, of a newer format than it knows
        raise AnnotationError(
            f"{path} is packed in a way that Python cannot read: {error}",
            hint="export it again as a plain zip",
        ) from error
    except (zipfile.BadZipFile, ValueError) as error:
        raise AnnotationError(f"{path} is cut short, or no zip: {error}", hint="export it again") from error
    with archive:
        names = archive.namelist()
        if len(names) > MOST_MEMBERS:
            raise AnnotationError(f"{path} holds {len(names):,} files; at most {MOST_MEMBERS:,} are read")
        seen = set[str]()
        for name in names:
            if _leads_out(name):
                raise AnnotationError(f"{path} holds the name {name!r}, which leads out of the archive")
            if name in seen:
                raise AnnotationError(f"{path} holds {name} twice")
            seen.add(name)
        yield Archive(path, archive)


def read_member(path: Path, endings: tuple[str, ...]) -> bytes:
    """The one member of an archive whose name has one of these endings, as exports of CVAT hold their annotations.

    Raises:
        AnnotationError: there is none, or several.
    """
    with open_archive(path) as archive:
        found = [name for name in archive.names if name.endswith(endings)]
        if len(found) != 1:
            raise AnnotationError(f"{path} holds {len(found)} files {' or '.join(endings)}, not one")
        return archive.read(found[0])


def _leads_out(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or (len(name) > 1 and name[1] == ":")


def image_bytes(archive: Archive, name: str, size: tuple[int, int]) -> bytes:
    """An image in an archive, which cannot be larger than its pixels and some more."""
    return archive.read(name, 8 * size[0] * size[1] + _HEADROOM)


def read_colours(data: bytes, size: tuple[int, int]) -> NDArray[np.int64]:
    """The colours of a PNG with a palette or of RGB, as red + 256 green + 65536 blue: [H, W].

    Args:
        data: the file.
        size: (H, W) it must have; looked at before a pixel is decoded.

    Raises:
        AnnotationError: no such PNG.
    """
    try:
        with open_image(io.BytesIO(data), ("PNG",)) as image:
            if (image.height, image.width) != size:
                raise AnnotationError(
                    f"its mask is {image.width}x{image.height}, the label map {size[1]}x{size[0]}"
                )
            if image.mode not in ("P", "RGB", "RGBA"):
                raise AnnotationError(f"its mask is a PNG of mode {image.mode}, not one of colours")
            colours: NDArray[np.int64] = np.asarray(image.convert("RGB")).astype(np.int64)
    except AnnotationError:
        raise
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise AnnotationError(f"its mask is damaged: {error}", hint="export it again") from error
    found: NDArray[np.int64] = colours[..., 0] + (colours[..., 1] << 8) + (colours[..., 2] << 16)
    return found


def read_mask(data: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of a grey PNG [H, W] that are not 0.

    Raises:
        AnnotationError: no such PNG, or another size.
    """
    try:
        with open_image(io.BytesIO(data), ("PNG",)) as image:
            if (image.height, image.width) != size:
                raise AnnotationError(
                    f"the mask is {image.width}x{image.height}, its box {size[1]}x{size[0]}"
                )
            return np.asarray(image.convert("L")) > 0
    except AnnotationError:
        raise
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise AnnotationError(f"the mask is damaged: {error}") from error
