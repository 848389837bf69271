"""One file = one way to read dense labels from CLIP; the folder is the registry."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from clipseg_cli.errors import UsageError, did_you_mean
from clipseg_cli.utils.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipseg_cli.types import Method

METHODS: Registry[Method] = Registry(__name__, "METHOD", "method")


def find_method(name: str) -> Method:
    """The method of that name, or a variant of one, as in "naclip:kk".

    Raises:
        UsageError: there is none; the hint names the nearest.
    """
    own = name.replace("-", "_")
    base, _, variant = own.partition(":")
    method = METHODS.get(base)
    if not variant:
        return method
    known = variants(base)
    if variant not in known:
        raise UsageError(
            f"--method {base} has no variant '{variant}'",
            hint=did_you_mean(variant, known) or "it has none at all",
        )
    return known[variant]


def variants(name: str) -> Mapping[str, Method]:
    """Ablations of a method that its file declares; may be empty."""
    found: Mapping[str, Method] = getattr(importlib.import_module(f"{__name__}.{name}"), "VARIANTS", {})
    return found
