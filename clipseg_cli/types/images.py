"""Images, before and after they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path, PurePosixPath

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageSource:
    """One input image before it is read.

    Attributes:
        path: the file, or None for standard input.
        relative: where its outputs go below the output folder, without suffix; unique within a run.
        file: name of its file, suffix included, where `path` is not that file (a frame of a video) or not known; else
            empty.
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
class RemoteSource(ImageSource):
    """An image that no path leads to: it is fetched when it is read.

    Attributes:
        address: of it, as fsspec takes it ("s3://bucket/photos/a.jpg").
    """

    address: str = field(kw_only=True)

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True)
class MemberSource(ImageSource):
    """An image of an archive; `path` is where it was unpacked to.

    Attributes:
        member: what messages call it: the archive, and its name in there.
    """

    member: str = field(kw_only=True)

    def __str__(self) -> str:
        return self.member


@dataclass(frozen=True)
class FrameSource(ImageSource):
    """One frame of a video; `path` is the video.

    Attributes:
        index: its number, from 0.
        size: (H, W) of all frames.
        fps: those that are labelled, a second.
        read: number of a frame -> uint8 RGB [H, W, 3], from any thread; ImageError where it cannot be had.
    """

    index: int = field(kw_only=True)
    size: tuple[int, int] = field(kw_only=True)
    fps: float = field(kw_only=True)
    read: Callable[[int], NDArray[np.uint8]] = field(kw_only=True, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.path}, frame {self.index}"


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
