"""`labelme/<image>.json`: shapes that LabelMe (wkentaro) and X-AnyLabeling open and edit, one for each region.

Outlines run along the edges of pixels. Regions with holes, which no polygon holds, are shapes of the kind "mask" (a box
and a PNG); `polygons=false` makes all of them masks. The background has no shape. `imagePath` leads from the file to
the image. Format: labelmeai/labelme@v5.5.0, labelme/label_file.py and labelme/utils/shape.py.
"""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipseg_cli.ops.polygons import trace
from clipseg_cli.outputs._own import MARK, write_own
from clipseg_cli.outputs._regions import AREAS, Lost, image_name, regions_of, rounded, things
from clipseg_cli.outputs._run import json_safe
from clipseg_cli.types import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clipseg_cli.ops.components import Regions
    from clipseg_cli.types import RunInfo, Segmentation, Writer

FOLDER = "labelme"
VERSION = "5.5.0"
_HOLES = "regions with holes, which no polygon holds and a shape of the kind mask does"


class LabelMe:
    """A file for each image, in a folder of their own."""

    def __init__(self, run: RunInfo, out: Path, min_area: int, polygons: bool) -> None:
        self._version, self._out = run.versions.get("clipseg", ""), out
        self._min_area, self._polygons = min_area, polygons
        self._lost = Lost("labelme")

    def begin(self) -> None:
        """Nothing to do: every file carries our mark."""

    def write(self, result: Segmentation, stem: Path) -> Sequence[Path]:
        """The file of one image.

        Raises:
            OutputError: it cannot be written, or would replace one of somebody else.
        """
        inside = stem.relative_to(self._out)
        path = self._out / FOLDER / inside.with_name(f"{inside.name}.json")
        regions = regions_of(result, self._min_area)
        shapes = [self._shape(result, regions, i) for i in things(result, regions)]
        height, width = result.labels.shape
        image = result.image.source.path
        data = {
            MARK: self._version,
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": image_name(result, stem, self._out) if image is None else _way(path.parent, image),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        self._lost.ignored(result)
        return (write_own(path, (json.dumps(json_safe(data), ensure_ascii=False, indent=1) + "\n").encode()),)

    def end(self) -> Sequence[Path]:
        """Say what no polygon held."""
        self._lost.say()
        return ()

    def _shape(self, result: Segmentation, regions: Regions, region: int) -> dict[str, Any]:
        left, top, width, height = regions.boxes[region].tolist()
        mask = regions.mask(region)
        rings = trace(mask) if self._polygons else []
        shape: dict[str, Any] = {
            "label": result.classes.names[regions.labels[region]],
            "points": [[left, top], [left + width - 1, top + height - 1]],  # of the last pixel in it
            "group_id": None,
            "description": "",
            "shape_type": "mask",
            "flags": {},
        }
        score = rounded(regions.confidences[region])
        if score is not None:
            shape["score"] = score
        if len(rings) == 1:
            return {
                **shape,
                "shape_type": "polygon",
                "points": (rings[0] + [left, top]).astype(float).tolist(),
            }
        if self._polygons:
            self._lost.add(_HOLES, 1)
        return {**shape, "mask": _base64(mask)}


def open_labelme(run: RunInfo, out: Path, *, min_area: int = 0, polygons: bool = True) -> Writer:
    """A writer of `labelme/`.

    Args:
        run: with what the results are made.
        out: the folder.
        min_area: smaller regions, in pixels, go to their surroundings.
        polygons: regions without holes are polygons; else every region is a mask.
    """
    return LabelMe(run, out, min_area, polygons)


def _way(folder: Path, image: Path) -> str:
    """From a folder to an image, with slashes; the whole path where there is no way, as between drives."""
    try:
        return Path(os.path.relpath(image, folder)).as_posix()
    except ValueError:
        return image.absolute().as_posix()


def _base64(mask: NDArray[np.bool_]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


FORMAT = Format(
    open_labelme,
    ranges={"min_area": AREAS, "polygons": (0, 1)},
    summary="labelme/*.json: polygons and masks that LabelMe and X-AnyLabeling open",
)
