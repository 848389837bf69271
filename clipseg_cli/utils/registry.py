"""A folder is a registry: every module in a package that declares a constant is found by its file name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from clipseg_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest known words, or with all of them when there are few; may be empty."""
    known = list(known)
    lowered = {k.lower(): k for k in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{lowered[c]}'" for c in close) + "?"
    return "known: " + ", ".join(known) if 0 < len(known) <= 12 else ""


class Registry(Generic[T]):
    """Modules of one package that declare `constant`, by file name; imported only when asked for.

    Args:
        package: dotted name of the folder.
        constant: name that a module must declare to be an entry.
        kind: what an entry is, for messages ("method").
    """

    def __init__(self, package: str, constant: str, kind: str) -> None:
        self.package, self.constant, self.kind = package, constant, kind

    def names(self) -> list[str]:
        """File names in the folder, sorted; does not import them. A leading underscore hides a file."""
        path = importlib.import_module(self.package).__path__
        return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))

    def get(self, name: str) -> T:
        """The entry in `name`.py.

        Raises:
            UsageError: there is no such file; the hint names the nearest.
        """
        if name not in self.names():
            raise UsageError(f"unknown {self.kind} '{name}'", hint=did_you_mean(name, self.names()))
        entry: Any = getattr(importlib.import_module(f"{self.package}.{name}"), self.constant)
        return entry  # type: ignore[no-any-return]
