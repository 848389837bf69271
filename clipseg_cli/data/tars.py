"""WebDataset: tars in which the files of one sample share a key (`dir/0001.jpg`, `dir/0001.json`).

Format: webdataset.github.io; the key is the path up to the first dot of the file's own name. Only images are read here.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, NamedTuple

from clipseg_cli.data.addresses import files_behind, open_address, without_scheme
from clipseg_cli.data.image_files import EXTENSIONS
from clipseg_cli.errors import DatasetError
from clipseg_cli.types import MemberSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDING = ".tar"
MOST = 1_000_000  # tars that braces may stand for
_BLOCK = 512
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


class Tar(NamedTuple):
    """One tar of a source.

    Attributes:
        address: a path, or as fsspec takes it.
        name: below the folder that all of them lie in, with its ending.
    """

    address: str
    name: PurePosixPath


def is_tars(text: str) -> bool:
    """Whether a source names tars."""
    return text.partition("::")[0].endswith(ENDING)


def find_tars(text: str) -> list[Tar]:
    """The tars that a name means: one, a pattern (`train-*.tar`), or braces (`train-{000..127}.tar`).

    Returns:
        In the order of the braces, sorted within a pattern; each once. Their names are unique.

    Raises:
        DatasetError: the address cannot be reached, nothing fits, or braces that stand for too many.
    """
    found = [
        address
        for name in expand_braces(without_scheme(text))
        for address in ([one for _, one in files_behind(name)] if _has_wildcard(name) else [name])
    ]
    found = list(dict.fromkeys(found))
    if not found:
        raise DatasetError(
            f"{text} stands for no tar", hint="braces count upwards, as in train-{000..127}.tar"
        )
    folders = [PurePosixPath(address.partition("::")[0]).parent for address in found]
    common = next(p for p in (folders[0], *folders[0].parents) if all(f.is_relative_to(p) for f in folders))
    with open_address(found[0]):  # an address that leads nowhere is said at once
        pass
    return [Tar(address, PurePosixPath(address.partition("::")[0]).relative_to(common)) for address in found]


def expand_braces(text: str) -> list[str]:
    """As a shell does: `a{1,2}` and `a{08..10}`, with the zeros of the first number.

    Raises:
        DatasetError: they stand for more than a million names.
    """
    names = [text]
    while any(_BRACES.search(name) for name in names):
        names = [other for name in names for other in _expand_first(name)]
        if len(names) > MOST:
            raise DatasetError(f"{text} stands for more than {MOST:,} tars")
    return names


def _expand_first(name: str) -> Iterator[str]:
    braces = _BRACES.search(name)
    if braces is None:
        yield name
        return
    numbers = _RANGE.fullmatch(braces[1])
    if numbers is None:
        parts: Iterator[str] = iter(braces[1].split(","))
    else:
        first, last = map(int, numbers.groups())
        if last - first >= MOST:
            raise DatasetError(f"{name} stands for more than {MOST:,} tars")
        parts = (f"{i:0{len(numbers[1])}}" for i in range(first, last + 1))
    for part in parts:
        yield name[: braces.start()] + part + name[braces.end() :]


def _has_wildcard(name: str) -> bool:
    return any(char in name.partition("::")[0] for char in "*?[")


def unpack_images(tar: Tar, folder: Path) -> tuple[list[MemberSource], int]:
    """Write the images of a tar into a folder; it is read once, from front to back.

    Args:
        tar: where it is.
        folder: an empty one.

    Returns:
        The images in the order of the tar, called by their keys; and the bytes of the tar.

    Raises:
        DatasetError: the tar cannot be reached or ends too early, or one key stands for two images.
    """
    sources: dict[str, MemberSource] = {}
    with open_address(tar.address) as file:
        watched = _Tail(file)
        try:
            with tarfile.open(fileobj=watched, mode="r|") as archive:  # type: ignore[call-overload]
                for member in archive:
                    source = _image(tar, member, folder / str(len(sources)))
                    if source is None:
                        continue
                    if source.name in sources:
                        raise DatasetError(
                            f"{source}: its key '{source.name}' stands for {sources[source.name].file} too",
                            hint="leave one image for each key",
                        )
                    sources[source.name] = source
                    content = archive.extractfile(member)
                    if content is not None and source.path is not None:
                        source.path.write_bytes(content.read())
            while watched.read(1 << 20):
                pass
        except tarfile.TarError as error:
            raise DatasetError(
                f"{tar.address} is no whole tar: {error}", hint="fetch or write it again"
            ) from error
        except OSError as error:
            raise DatasetError(f"{tar.address} cannot be unpacked: {error.strerror or error}") from error
    if watched.last.strip(b"\0") or len(watched.last) < _BLOCK:
        raise DatasetError(
            f"{tar.address} is no whole tar: its end is missing", hint="fetch or write it again"
        )
    return list(sources.values()), watched.size


def _image(tar: Tar, member: tarfile.TarInfo, path: Path) -> MemberSource | None:
    """A member as a source; None where it is no image.

    Raises:
        DatasetError: it would lie outside the folder of its labels.
    """
    parts = _MEMBER.fullmatch(member.name.removeprefix("./"))
    if not member.isfile() or parts is None or f".{parts[2].lower()}" not in EXTENSIONS:
        return None
    key = PurePosixPath(parts[1])
    if key.is_absolute() or ".." in key.parts:
        raise DatasetError(f"{tar.address}: the name {member.name} leads out of the tar")
    file = PurePosixPath(member.name).name
    return MemberSource(path, key, file, member=f"{tar.address}: {member.name}")


class _Tail:
    """A stream that remembers its last block: a whole tar ends in zeros, and `tarfile` does without."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.last, self.size = b"", 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.last = (self.last + data)[-_BLOCK:]
        self.size += len(data)
        return data
