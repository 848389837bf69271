"""Frames of a video file, read one after the other by OpenCV and handed out by number."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import cv2
import numpy as np

from clipseg_cli.errors import ImageError
from clipseg_cli.types import FrameSource

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from numpy.typing import NDArray

MOST_WAITING = 32
"""Decoded frames that nobody has asked for yet."""


class Video:
    """A video file; threads may ask for its frames in nearly any order, those in front first.

    Args:
        path: of the file.
        every: of its frames, only each of this number is wanted: 0, every, 2 * every ...

    Attributes:
        count: frames that the file says it has.
        fps: frames a second; 25 where the file does not say.
        size: (H, W), upright.

    Raises:
        ImageError: it is no video that OpenCV can read.
    """

    def __init__(self, path: Path, every: int = 1) -> None:
        self.path, self.every = path, every
        capture = self._open()
        self.count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.fps = float(capture.get(cv2.CAP_PROP_FPS)) or 25.0
        self.size = (
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        )
        capture.release()
        if self.count < 1 or min(self.size) < 1:
            raise ImageError(f"{path}: a video without frames", image=str(path))
        self._lock = threading.Lock()
        self._capture: cv2.VideoCapture | None = None
        self._next = 0
        self._waiting: dict[int, NDArray[np.uint8]] = {}

    def sources(self, folder: PurePosixPath) -> list[FrameSource]:
        """The frames that are wanted, each to be written below a folder by its number."""
        digits = max(6, len(str(self.count)))
        names = ((i, f"{i:0{digits}d}") for i in range(0, self.count, self.every))
        return [
            FrameSource(
                self.path,
                folder / name,
                f"{name}.jpg",
                index=i,
                size=self.size,
                fps=self.fps / self.every,
                read=self.read,
            )
            for i, name in names
        ]

    def read(self, index: int) -> NDArray[np.uint8]:
        """RGB [H, W, 3] of one frame.

        Raises:
            ImageError: the file ends before it, or is damaged there.
        """
        with self._lock:
            if index in self._waiting:
                return self._waiting.pop(index)
            if self._capture is None or index < self._next:
                self._close()
                self._capture, self._next = self._open(), 0
            while True:
                wanted = self._next == index or self._next % self.every == 0
                good = self._capture.grab()
                found, pixels = self._capture.retrieve() if good and wanted else (False, np.empty(0))
                self._next += 1
                if not good or (wanted and not found):
                    self._close()
                    raise ImageError(
                        f"{self.path}: ends before frame {index}, or is damaged there", image=str(self.path)
                    )
                if not wanted:
                    continue
                rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
                if self._next > index:
                    if self._next + self.every > self.count:  # the last one
                        self._close()
                    return rgb
                if len(self._waiting) >= MOST_WAITING:
                    del self._waiting[min(self._waiting)]
                self._waiting[self._next - 1] = rgb

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise ImageError(f"{self.path}: no video that can be read", image=str(self.path))
        return capture

    def _close(self) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture = None
