"""`coco.json`: instances as COCO has them, one annotation for each region, as compressed run lengths.

Nothing is lost: decoded again, the annotations are the label map. The background is no category; categories count
from 1 in label order, so that they are the ids of the label PNG where the background is the first class. Images of
earlier runs in the same folder keep their entries. Format: cocodataset.org/#format-data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipseg_cli.ops.rle import coco_string, counts_of
from clipseg_cli.outputs._coco import coco_writer
from clipseg_cli.outputs._regions import AREAS, Lost, runs_along
from clipseg_cli.types import Format

if TYPE_CHECKING:
    from pathlib import Path

    from clipseg_cli.types import RunInfo, Segmentation, Writer

FILE = "coco.json"


def compressed(result: Segmentation, region: int, min_area: int) -> dict[str, Any]:
    """A region as COCO's compressed run lengths: `size` and `counts`."""
    runs = runs_along(result, min_area, "columns")  # COCO counts down the columns
    height, width = result.labels.shape
    counts = counts_of(*runs.of(region), height * width)
    return {"size": [height, width], "counts": coco_string(counts)}


def open_coco(run: RunInfo, out: Path, *, min_area: int = 0) -> Writer:
    """A writer of `coco.json`; `min_area`: smaller regions, in pixels, go to their surroundings."""
    lost = Lost("coco")
    return coco_writer(out / FILE, run, lambda result, i: compressed(result, i, min_area), lost, min_area)


FORMAT = Format(
    open_coco,
    ranges={"min_area": AREAS},
    summary="coco.json: COCO instances, one for each region, as compressed run lengths",
)
