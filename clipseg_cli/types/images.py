"""Images, before and after they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageSource:
    """One input image before it is read.

    Attributes:
        path: the file, or None for standard input.
        relative: where its outputs go below the output folder, without suffix; unique within a run.
        file: name of its file, suffix included, where only that is known and not the file; else empty.
    """

    path: Path | None
    relative: PurePosixPath
    file: str = ""

    @property
    def name(self) -> str:
        """What it is called in a run."""
        return str(self.relative)

    def __str__(self) -> str:
        return "standard input" if self.path is None else str(self.path)


class MemorySource(ImageSource):
    """An image that no file name belongs to; `relative` is what messages call it."""

    def __str__(self) -> str:
        return str(self.relative)


@dataclass(frozen=True)
class DecodedImage:
    """An image as 8-bit RGB, upright.

    Attributes:
        source: where it came from.
        pixels: uint8 RGB [H, W, 3]; [0, 0, 3] where only labels of it were read.
        notes: what a user should know about the decoding ("animation: first of 12 frames").
    """

    source: ImageSource
    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()
