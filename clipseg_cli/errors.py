"""What can go wrong because of an input, said in a sentence; only `cli/main.py` prints these."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class ClipsegError(Exception):
    """Something the user can mend: what is wrong and where, and what to do next.

    Args:
        message: one sentence that names the file, option or value.
        hint: what to do next; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ClipsegError):
    """An option holds a value that cannot be meant (unknown model, method, device ...)."""

    exit_code = 2


class ImageError(ClipsegError):
    """One input image cannot be used; the others still can.

    Args:
        image: the input as the user named it.
    """

    def __init__(self, message: str, hint: str = "", *, image: str = "") -> None:
        super().__init__(message, hint)
        self.image = image


class ClassListError(ClipsegError):
    """The list of class names is malformed; the message names the place."""


class DatasetError(ClipsegError):
    """A data set, its split or one of its label files is not what it should be; the message lists the paths."""


class AnnotationError(ClipsegError):
    """A file of annotations cannot be read, or says what cannot be; the message names file and image."""


class RunError(ClipsegError):
    """A run folder cannot be used: in use, made with other options or by another version, or damaged."""


class ClusterError(ClipsegError):
    """A cluster cannot be reached, its workers cannot begin, or it was lost."""


class ModelError(ClipsegError):
    """Weights cannot be downloaded, read or loaded into the network, or a tower gives no dense features."""


class OutputError(ClipsegError):
    """An output cannot be written: no permission, no space left, not a folder."""


class DiskFullError(OutputError):
    """No space is left; every later file would fail in the same way."""


class ShapeError(ClipsegError):
    """Tensors handed to a function of the core do not fit each other."""


@contextmanager
def hinting(hint: str) -> Iterator[None]:
    """Errors in the block say this as what to do next."""
    try:
        yield
    except ClipsegError as error:
        error.hint = hint
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on the accelerator or beside it."""
    # torch.OutOfMemoryError is a RuntimeError; on the CPU a plain one says "can't allocate memory".
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest known words, or with all of them when there are few; may be empty."""
    known = list(known)
    lowered = {k.lower(): k for k in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{lowered[c]}'" for c in close) + "?"
    return "known: " + ", ".join(known) if 0 < len(known) <= 16 else ""
