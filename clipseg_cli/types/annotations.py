"""What a file of annotations says of an image, before it is held against the label map that is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from clipseg_cli.types.classes import ClassList

UNTOLD = -1
"""Where a file of regions has no region: background, or nothing where the classes have none."""

NO_CLASS = -2
"""Where a file says that a pixel has no class."""

Told = NDArray[np.int32]
"""[H, W] class ids, `UNTOLD` or `NO_CLASS`."""


@dataclass(frozen=True)
class Annotation:
    """One image of a file.

    Attributes:
        image: what the file calls it: a name or a path, with its suffix or without, with slashes.
        size: (H, W) that the file gives it; None where it gives none.
        told: (H, W) -> what the file says; None where it says that the label that is there is right. Raises
            `AnnotationError`, whose message is about the image and does not name it.
        checked: somebody has looked at the image, even if nothing was changed.
        label: fingerprint of the label PNG that it is about; "" where that is not said.
    """

    image: str
    size: tuple[int, int] | None
    told: Callable[[tuple[int, int]], Told] | None
    checked: bool = False
    label: str = ""


@dataclass(frozen=True)
class ReadOptions:
    """How files are to be understood.

    Attributes:
        classes: of the label maps.
        on_top: where regions of two classes overlap the later one holds; else that is an error.
        run: name of the folder of the label maps.
    """

    classes: ClassList
    on_top: bool = False
    run: str = ""


@dataclass(frozen=True)
class AnnotationFormat:
    """One format that is read; a file in `data/annotations/` that declares FORMAT is in the registry.

    Attributes:
        read: (path, options) -> the images of the file, in its order. Raises `AnnotationError`.
        recognise: whether a path is surely of this format; False where it cannot be read.
        suffixes: of its files, for those in a folder.
        mark: a file that makes a folder one thing of this format; "" where every file stands for itself.
        summary: one line for help texts.
    """

    read: Callable[[Path, ReadOptions], Iterator[Annotation]]
    recognise: Callable[[Path], bool]
    suffixes: tuple[str, ...]
    mark: str = ""
    summary: str = ""
