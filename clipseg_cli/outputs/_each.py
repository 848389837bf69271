"""Formats that write each image by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from clipseg_cli.types import RunInfo, Segmentation, Writer


class EachImage:
    """A writer that has nothing to begin and nothing to end.

    Args:
        write: (result, stem, run, **options) -> files made.
        run: with what the results are made.
        options: of the format.
    """

    def __init__(self, write: Callable[..., Sequence[Path]], run: RunInfo, options: dict[str, Any]) -> None:
        self._write, self._run, self._options = write, run, options

    def begin(self) -> None:
        """Nothing to do."""

    def write(self, result: Segmentation, stem: Path) -> Sequence[Path]:
        """The files of one result."""
        return self._write(result, stem, self._run, **self._options)

    def end(self) -> Sequence[Path]:
        """No file describes them all."""
        return ()


def each(write: Callable[..., Sequence[Path]]) -> Callable[..., Writer]:
    """What `Format.open` is for a function that writes one image; its keyword arguments are the options."""

    def open_(run: RunInfo, out: Path, **options: Any) -> Writer:
        del out
        return EachImage(write, run, options)

    open_.__kwdefaults__ = getattr(write, "__kwdefaults__", None)
    return open_
