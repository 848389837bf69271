"""`<video>_overlay.mp4`: the labelled frames of a video, tinted by class, with a legend of all of them below.

Frames wait as JPEG on the disk until the last is there, so that memory stays flat and their order is that of the video.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from clipseg_cli.errors import OutputError
from clipseg_cli.outputs import _canvas as canvas
from clipseg_cli.outputs._colors import class_colors
from clipseg_cli.outputs._own import MARK
from clipseg_cli.outputs._sheet import Legend
from clipseg_cli.outputs._spool import Spool
from clipseg_cli.types import ClassShare, Format, FrameSource
from clipseg_cli.utils.files import ANOTHER_FOLDER, output_errors, replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clipseg_cli.types import RunInfo, Segmentation, Writer

logger = logging.getLogger(__name__)

ENDING = "_overlay.mp4"
QUALITY = 90
_END = len(MARK).to_bytes(1, "big") + MARK.encode()
_FREE_BOX = (8 + len(_END)).to_bytes(4, "big") + b"free" + _END
"""A box that players skip, as ISO 14496-12 has it; by it the file is known to be ours."""


@dataclass(eq=False)
class _Film:
    path: Path
    spool: Spool
    fps: float
    size: tuple[int, int]
    pixels: NDArray[np.int64]
    frames: list[str] = field(default_factory=list)


class Films:
    """A writer of one film for each video."""

    def __init__(self, run: RunInfo, out: Path, opacity: float) -> None:
        self._out, self._classes, self._opacity = out, run.classes, opacity
        self._colors = class_colors(len(run.classes), run.classes.background)
        self._films: dict[Path, _Film] = {}
        self._lock = threading.Lock()
        self._stills = 0

    def begin(self) -> None:
        """Nothing to do before the first frame says which video there is."""

    def write(self, result: Segmentation, stem: Path) -> Sequence[Path]:
        """Keep one frame; other images are counted.

        Raises:
            OutputError: the disk is full, or another file of the name of the film lies there.
        """
        source = result.image.source
        if not isinstance(source, FrameSource):
            with self._lock:
                self._stills += 1
            return ()
        with self._lock:
            film = self._film(stem.parent, source, result)
            film.pixels += np.array([share.pixels for share in result.shares()])
        tinted = canvas.tint(
            canvas.resize_smooth(result.image.pixels, film.size),
            canvas.resize_labels(result.labels, film.size),
            self._colors,
            result.classes.background,
            self._opacity,
        )
        good, data = cv2.imencode(
            ".jpg", cv2.cvtColor(tinted, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        )
        assert good
        film.spool.add(stem.name, data.tobytes())
        return ()

    def end(self) -> Sequence[Path]:
        """Write the films.

        Raises:
            OutputError: one cannot be written.
        """
        if self._stills:
            are = "1 image is no frame" if self._stills == 1 else f"{self._stills} images are no frames"
            logger.warning("video: %s of a video and in no film", are)
        return [self._write(film) for film in self._films.values() if len(film.spool)]

    def _film(self, folder: Path, source: FrameSource, result: Segmentation) -> _Film:
        if folder not in self._films:
            path = folder.with_name(folder.name + ENDING)
            _refuse_strangers(path)
            size = canvas.show_size(*result.labels.shape)
            even = (size[0] // 2 * 2, size[1] // 2 * 2)
            counts = np.zeros(len(self._classes), np.int64)
            self._films[folder] = _Film(path, Spool(path), source.fps, even, counts)
        return self._films[folder]

    def _write(self, film: _Film) -> Path:
        total = max(1, int(film.pixels.sum()))
        shares = [
            ClassShare(i, name, int(n), float(n / total), None)
            for i, (name, n) in enumerate(zip(self._classes.names, film.pixels, strict=True))
        ]
        height, width = film.size
        legend = Legend(shares, self._colors, canvas.font_size(*film.size))
        panel = legend.draw(columns=max(1, (width - legend.pad) // legend.column))[:, :width]
        rows = panel.shape[0] + panel.shape[0] % 2
        below = np.full((rows, width, 3), 255, np.uint8)
        below[: panel.shape[0], : panel.shape[1]] = panel
        below = cv2.cvtColor(below, cv2.COLOR_RGB2BGR)
        with output_errors(film.path), tempfile.TemporaryDirectory(dir=film.path.parent) as folder:
            made = Path(folder) / "film.mp4"
            writer = cv2.VideoWriter(
                str(made), cv2.VideoWriter.fourcc(*"mp4v"), film.fps, (width, height + rows)
            )
            if not writer.isOpened():
                raise OutputError(f"{film.path}: OpenCV cannot write a video here", hint="leave out video")
            for _, data in film.spool:
                frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                writer.write(np.concatenate([frame, below]))
            writer.release()
            film.spool.close()
            with replacing(film.path) as file, made.open("rb") as source:
                shutil.copyfileobj(source, file)
                file.write(_FREE_BOX)
        return film.path


def _refuse_strangers(path: Path) -> None:
    """Prove that no film of somebody else would be lost.

    Raises:
        OutputError: one lies there, or a folder.
    """
    with output_errors(path):
        if path.is_dir():
            raise OutputError(f"{path} is a folder, where a file would be written", hint=ANOTHER_FOLDER)
        if not path.is_file():
            return
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - len(_FREE_BOX)))
            own = file.read() == _FREE_BOX
    if not own:
        raise OutputError(
            f"{path} was not made by clipseg and would be written over",
            hint=f"move it away, or {ANOTHER_FOLDER}",
        )


def open_films(run: RunInfo, out: Path, *, opacity: float = canvas.OPACITY) -> Writer:
    """A writer of films; `opacity` is how much of the class colours shows, from 0 to 1."""
    return Films(run, out, opacity)


FORMAT = Format(
    open_films,
    needs=("pixels",),
    ranges={"opacity": (0, 1)},
    summary="VIDEO_overlay.mp4: the frames of a video, tinted by class",
)
