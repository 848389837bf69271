"""clipseg: open-vocabulary segmentation with frozen CLIP models, from the command line or from Python.

    from clipseg_cli import Segmenter
    Segmenter.from_pretrained("emoji").segment("drawing.png", "cat,house").labels

What is public is loaded when it is first asked for, since torch takes seconds; `__init__.pyi` tells type checkers.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"
__all__ = ["Segmentation", "Segmenter", "__version__"]

_HOMES = {"Segmentation": "clipseg_cli.api.segmentation", "Segmenter": "clipseg_cli.api.segmenter"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
