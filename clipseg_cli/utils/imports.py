"""One module of a package, without all that the package itself imports.

`import open_clip` brings torchvision, timm and transformers, which takes longer than labelling an image does; its
tables of names, tags and templates and its tokenizer need none of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def module_alone(package: str, name: str) -> ModuleType:
    """A module of a top-level package whose `__init__` is not run.

    It is imported under another name for the package, so that nobody who imports the package itself gets half of it.
    Where that is imported already, its own module is given: what was registered there is known here.

    Args:
        package: such as "open_clip".
        name: of a module in it, such as "pretrained".

    Raises:
        ModuleNotFoundError: no such package or module.
    """
    if package not in sys.modules:
        alias = f"_{package}_alone"
        if alias not in sys.modules:
            bare = ModuleSpec(alias, None, is_package=True)
            bare.submodule_search_locations = [str(folder_of(package))]
            sys.modules.setdefault(alias, importlib.util.module_from_spec(bare))
        try:
            return importlib.import_module(f"{alias}.{name}")
        except ImportError:  # of a version whose module does need the package: the same, but later
            pass
    return importlib.import_module(f"{package}.{name}")


def folder_of(package: str) -> Path:
    """Where a top-level package lies; it is not imported.

    Raises:
        ModuleNotFoundError: no such package.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    return Path(next(iter(spec.submodule_search_locations)))
