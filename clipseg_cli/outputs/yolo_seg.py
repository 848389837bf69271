"""`yolo_seg/`: a data set as Ultralytics' YOLO segmentation has them: `data.yaml` and `labels/train|val/<image>.txt`.

A line is a class and the corners of one region as shares of width and height. Classes count from 0 without the
background. Outlines run along the edges of pixels; holes are joined to the outline by a bridge of no width, so that
nothing is lost by the even-odd rule. Which images are for validation follows from their names, so that it stays as it
is when others are added. Images are looked for in `images/train|val/<image>`: put them there, or have them copied with
`images=true`. Format: docs.ultralytics.com/datasets/segment.
"""

from __future__ import annotations

import json
import logging
import threading
import zlib
from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.errors import OutputError
from clipseg_cli.ops.polygons import bridged, trace
from clipseg_cli.outputs._own import MARK, refuse_strangers, write_own
from clipseg_cli.outputs._regions import (
    AREAS,
    Lost,
    class_numbers,
    image_name,
    regions_of,
    things,
    writable_names,
)
from clipseg_cli.types import Format
from clipseg_cli.utils.files import ANOTHER_FOLDER, output_errors, write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from clipseg_cli.types import RunInfo, Segmentation, Writer

logger = logging.getLogger(__name__)

FOLDER, FILE = "yolo_seg", "data.yaml"
DIGITS = 10
"""Of a coordinate: enough to find the edge of a pixel again in any image."""

_HOLES = "regions with holes, which are joined to the outline by a bridge of no width"


class YoloSeg:
    """A text file for each image, and `data.yaml` at the end."""

    def __init__(self, run: RunInfo, out: Path, min_area: int, val: float, images: bool) -> None:
        self._run, self._out, self._folder = run, out, out / FOLDER
        self._min_area, self._val, self._images = min_area, val, images
        self._numbers = class_numbers(run.classes) - 1
        self._lost = Lost("yolo-seg")
        self._begun = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Make sure that the folder is ours: the text files cannot say so themselves.

        Raises:
            OutputError: it is somebody else's.
        """
        path = self._folder / FILE
        refuse_strangers(path)
        with output_errors(self._folder):
            there = self._folder.is_dir() and any(self._folder.iterdir())
        if there and not path.is_file():
            raise OutputError(
                f"{self._folder} was not made by clipseg: it has no {FILE}",
                hint=f"move it away, or {ANOTHER_FOLDER}",
            )

    def write(self, result: Segmentation, stem: Path) -> Sequence[Path]:
        """The file of one image, and the image where copies were asked for.

        Raises:
            OutputError: one of them cannot be written.
        """
        with self._lock:
            if not self._begun and not (self._folder / FILE).exists():
                self._describe("train")  # from now on the folder says whose it is
            self._begun = True
        inside = stem.relative_to(self._out)
        part = _part(inside.as_posix(), self._val)
        other = "train" if part == "val" else "val"
        name = inside.with_name(f"{inside.name}.txt")
        path = write_bytes(self._folder / "labels" / part / name, self._lines(result).encode())
        (self._folder / "labels" / other / name).unlink(missing_ok=True)  # of a run with another share
        self._lost.ignored(result)
        source = result.image.source.path
        if not self._images or source is None:
            return (path,)
        copy = self._folder / "images" / part / image_name(result, stem, self._out)
        with output_errors(copy):
            data = source.read_bytes()
        return (path, write_bytes(copy, data))

    def end(self) -> Sequence[Path]:
        """Write `data.yaml`, and say what no polygon holds.

        Raises:
            OutputError: it cannot be written.
        """
        if not self._begun:
            return ()
        has_val = any((self._folder / "labels" / "val").rglob("*.txt"))
        if not has_val:
            logger.warning("yolo-seg: no image is for validation, where those for training stand now")
        self._lost.say()
        return (self._describe("val" if has_val else "train"),)

    def _describe(self, val: str) -> Path:
        names = [
            f"  {number}: {json.dumps(name, ensure_ascii=False)}\n"
            for number, name in zip(self._numbers.tolist(), writable_names(self._run.classes), strict=True)
            if number >= 0
        ]
        text = (
            f"# {MARK} {self._run.versions.get('clipseg', '')}: images belong into images/train and images/val\n"
            f"train: images/train\nval: images/{val}\nnames:\n{''.join(names)}"
        )
        return write_own(self._folder / FILE, text.encode())

    def _lines(self, result: Segmentation) -> str:
        regions = regions_of(result, self._min_area)
        size = np.array(result.labels.shape[::-1])
        lines = []
        for i in things(result, regions):
            rings = trace(regions.mask(i))
            self._lost.add(_HOLES, len(rings) > 1)
            corners = (bridged(rings) + regions.boxes[i, :2]) / size
            numbers = " ".join(f"{value:.{DIGITS}g}" for value in corners.ravel().tolist())
            lines.append(f"{self._numbers[regions.labels[i]]} {numbers}\n")
        return "".join(lines)


def open_yolo(
    run: RunInfo, out: Path, *, min_area: int = 0, val: float = 0.1, images: bool = False
) -> Writer:
    """A writer of `yolo_seg/`.

    Args:
        run: with what the results are made.
        out: the folder.
        min_area: smaller regions, in pixels, go to their surroundings.
        val: share of the images that are for validation.
        images: whether the images are copied too.
    """
    return YoloSeg(run, out, min_area, val, images)


def _part(name: str, val: float) -> str:
    """Of which part an image is, by its name alone."""
    share = zlib.crc32(name.encode(errors="replace")) / 2**32
    return "val" if share < val else "train"


FORMAT = Format(
    open_yolo,
    ranges={"min_area": AREAS, "val": (0, 1), "images": (0, 1)},
    summary="yolo_seg/: polygons and data.yaml for Ultralytics' YOLO",
)
