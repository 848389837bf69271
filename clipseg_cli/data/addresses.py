"""Files behind addresses: s3://bucket/photos, memory://photos, zip://photos::archive.zip. Opened by fsspec.

An address of this machine (file:///photos) is a path like any other, and is turned into one. fsspec is imported where
an address is met: a path needs none of it.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from clipseg_cli.errors import ClipsegError, DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MARK = "://"
CHAIN = "::"
_HERE = ("file://", "local://")
_WILD = "*?["

_MARKS = (
    *("etag", "md5hash", "content-md5", "crc32c", "crc", "digest", "generation"),
    *("mtime", "last-modified", "lastmodified"),
)
"""What file systems call a checksum of a file, or the time when its content was written, in small letters."""


def without_scheme(text: str) -> str:
    """The path that an address of this machine means; anything else as it is."""
    for scheme in _HERE:
        if text.startswith(scheme) and CHAIN not in text:
            return text.removeprefix(scheme)
    return text


def is_address(text: str) -> bool:
    """Whether a text is an address that fsspec has to open, and not a path."""
    return MARK in without_scheme(text)


def is_in_memory(text: str) -> bool:
    """Whether only the process that wrote there can read it."""
    return any(part.startswith("memory://") for part in text.split(CHAIN))


@contextmanager
def open_address(address: str, error: type[ClipsegError] = DatasetError) -> Iterator[IO[bytes]]:
    """The bytes behind an address, or in a file.

    Args:
        address: of one file.
        error: what is raised about the address; a `ClipsegError` of the block passes as it is.

    Raises:
        error: it cannot be reached, or there is nothing, or reading breaks off.
    """
    with reaching(address, error):
        system, path = _system(address)
        with system.open(path, "rb") as file:
            yield cast("IO[bytes]", file)


class Version(NamedTuple):
    """What tells one content of a file from another, without its being read.

    Attributes:
        size: in bytes; 0 where its server does not tell.
        mark: of what its file system says of this content, 16 hexadecimal digits; "" where it says nothing.
    """

    size: int
    mark: str


NOTHING = Version(0, "")
"""The version of no file."""


def version_behind(address: str) -> Version:
    """The version of a file that is there now.

    Raises:
        DatasetError: it cannot be reached, or there is nothing.
    """
    with reaching(address):
        system, path = _system(address)
        facts = system.info(path)
        said = {key: str(facts[key]) for key in sorted(facts) if key.lower().replace("_", "-") in _MARKS}
        mark = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16] if said else ""
        return Version(int(facts.get("size") or 0), mark)


def files_behind(address: str) -> list[tuple[str, str]]:
    """All files below the folder that an address names, or that fit its pattern, sorted.

    Args:
        address: of a folder, or with wildcards (`*`, `?`, `[`).

    Returns:
        Pairs of the path below the folder (below the last folder without wildcards) and the address of the file.

    Raises:
        DatasetError: it cannot be reached, or there is nothing.
    """
    head, chain, rest = address.partition(CHAIN)
    wild = next((i for i, char in enumerate(head) if char in _WILD), None)
    fixed = head if wild is None else head[: head.rfind("/", 0, wild) + 1]
    with reaching(address):
        system, base = _system(fixed + chain + rest)
        pattern = f"{base.rstrip('/')}/{head[len(fixed) :]}"
        found = system.find(base) if wild is None else _files(system.glob(pattern, detail=True))
    if not found:
        raise DatasetError(f"{address}: nothing is there", hint="is the address right?")
    inner = sorted(path[len(base) :].lstrip("/") for path in map(str, found))
    start = fixed if not fixed or fixed.endswith("/") else f"{fixed}/"
    return [(path, start + path + chain + rest) for path in inner]


@contextmanager
def reaching(address: str, error: type[ClipsegError] = DatasetError) -> Iterator[None]:
    """Turn whatever a file system raises about an address into a sentence.

    Raises:
        error: what is wrong with the address, or which package it needs.
    """
    try:
        yield
    except ClipsegError:
        raise
    except FileNotFoundError as problem:
        raise error(f"{address}: no such file or folder") from problem
    except IsADirectoryError as problem:
        raise error(f"{address}: is a folder, where a file is wanted") from problem
    except ImportError as problem:
        raise error(f"{address} needs a package: {_line(problem)}", hint=_install(address)) from problem
    except Exception as problem:
        # Every plugin has exceptions of its own: of sockets, of cloud libraries, of archives.
        raise error(
            f"{address} cannot be reached: {_line(problem)}", hint="is the address right?"
        ) from problem


def _files(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [path for path, facts in found.items() if facts["type"] != "directory"]


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    from fsspec.core import url_to_fs

    return cast("tuple[Any, str]", url_to_fs(address))


def _line(problem: BaseException) -> str:
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text.rstrip(".")


def _install(address: str) -> str:
    """How to get the package that opens an address; empty where fsspec does not know it."""
    from fsspec.registry import known_implementations

    scheme = address.partition(MARK)[0]
    package = str(known_implementations.get(scheme, {}).get("class", "")).partition(".")[0]
    return f"pip install {package}" if package not in ("", "fsspec") else "install it, or copy the files here"
