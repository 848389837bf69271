"""The formats that a run writes, side by side in one folder."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from clipseg_cli.errors import ClipsegError, UsageError, did_you_mean
from clipseg_cli.utils.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from clipseg_cli.types import Format, RunInfo, Segmentation

FORMATS: Registry[Format] = Registry("clipseg_cli.outputs", "FORMAT", "output format")


def format_names(texts: Sequence[str]) -> tuple[str, ...]:
    """The file of each format once, of texts with names by comma; a hyphen in a name is an underscore.

    Raises:
        UsageError: a name that is no format, or a text without any.
    """
    names: dict[str, None] = {}
    for text in texts:
        own = [part.strip() for part in text.split(",") if part.strip()]
        known = [shown_name(name) for name in FORMATS.names()]
        if not own:
            raise UsageError(f"--formats '{text}' names none", hint=f"some of {', '.join(known)}")
        for name in own:
            if name.replace("-", "_") not in FORMATS.names():
                hint = did_you_mean(name, known) or "clipseg models --formats lists all"
                raise UsageError(f"unknown {FORMATS.kind} '{name}'", hint=hint)
            names[name.replace("-", "_")] = None
    return tuple(names)


def shown_name(name: str) -> str:
    """A format as people write it: the name of its file with hyphens."""
    return name.replace("_", "-")


class Outputs:
    """Writers of several formats, begun and ended together.

    Args:
        names: of the formats.
        run: with what the results are made.
        out: the folder.
        options: format -> its options.
    """

    def __init__(
        self, names: Sequence[str], run: RunInfo, out: Path, options: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._writers = {name: FORMATS.get(name).open(run, out, **options.get(name, {})) for name in names}

    def begin(self) -> None:
        """Before the first result."""
        for writer in self._writers.values():
            writer.begin()

    def write(self, result: Segmentation, stem: Path, *, without: str = "") -> dict[str, tuple[Path, ...]]:
        """Format -> files made of one result.

        Args:
            result: of one image.
            stem: of its files.
            without: a format that is not written this time.

        Raises:
            OutputError: a file cannot be written.
        """
        return {
            name: tuple(writer.write(result, stem))
            for name, writer in self._writers.items()
            if name != without
        }

    def end(
        self, around: Callable[[str], AbstractContextManager[Any]] = nullcontext
    ) -> dict[str, tuple[Path, ...]]:
        """Format -> files made of all results; where one fails, the others are still written.

        Args:
            around: what is entered, with the name of a format, while its files are written.

        Raises:
            OutputError: a file cannot be written; the first of several.
        """
        written: dict[str, tuple[Path, ...]] = {}
        failures: list[ClipsegError] = []
        for name, writer in self._writers.items():
            try:
                with around(name):
                    written[name] = tuple(writer.end())
            except ClipsegError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return written
