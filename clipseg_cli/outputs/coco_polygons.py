"""`coco_polygons.json`: as `coco.json`, with polygons for tools that edit them.

Outlines run along the edges of pixels, so that filled again by COCO's own rules they are the region, specks too. Holes
no polygon of COCO holds: such regions stay compressed run lengths, and are counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipseg_cli.ops.polygons import trace
from clipseg_cli.outputs._coco import coco_writer
from clipseg_cli.outputs._regions import AREAS, Lost, regions_of
from clipseg_cli.outputs.coco import compressed
from clipseg_cli.types import Format

if TYPE_CHECKING:
    from pathlib import Path

    from clipseg_cli.types import RunInfo, Segmentation, Writer

FILE = "coco_polygons.json"


def open_polygons(run: RunInfo, out: Path, *, min_area: int = 0) -> Writer:
    """A writer of `coco_polygons.json`; `min_area`: smaller regions, in pixels, go to their surroundings."""
    lost = Lost("coco-polygons")

    def outline(result: Segmentation, region: int) -> Any:
        regions = regions_of(result, min_area)
        rings = trace(regions.mask(region))
        if len(rings) == 1:
            return [(rings[0] + regions.boxes[region, :2]).ravel().tolist()]
        lost.add("regions with holes, which no polygon holds and compressed run lengths do", 1)
        return compressed(result, region, min_area)

    return coco_writer(out / FILE, run, outline, lost, min_area)


FORMAT = Format(
    open_polygons,
    ranges={"min_area": AREAS},
    summary="coco_polygons.json: COCO instances as polygons, those with holes as run lengths",
)
