"""A folder is a registry: every module in a package that declares a constant is found by its file name."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Any, Generic, TypeVar

from clipseg_cli.errors import UsageError, did_you_mean

T = TypeVar("T")


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
        module = sys.modules.get(f"{self.package}.{name}")
        if module is None or name.startswith("_"):  # not asked for before: the folder tells
            names = self.names()
            if name not in names:
                raise UsageError(f"unknown {self.kind} '{name}'", hint=did_you_mean(name, names))
            module = importlib.import_module(f"{self.package}.{name}")
        entry: Any = getattr(module, self.constant)
        return entry  # type: ignore[no-any-return]
