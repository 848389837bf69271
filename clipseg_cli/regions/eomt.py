"""EoMT: a plain ViT whose queries are masks; panoptic segments of COCO (arXiv:2503.19108).

Weights and code: tue-mps/eomt@7bd19dd, MIT, on DINOv2 (Apache-2.0); in transformers as EomtForUniversalSegmentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipseg_cli.regions._panoptic import RANGES, open_network
from clipseg_cli.types import RegionSource

if TYPE_CHECKING:
    from clipseg_cli.types import RegionMaker, RegionTools


def open_eomt(
    tools: RegionTools,
    *,
    threshold: float = 0.8,
    mask_threshold: float = 0.5,
    overlap: float = 0.8,
    side: int = 1024,
) -> RegionMaker:
    """Its panoptic segments; what no segment covers is in no region.

    Args:
        tools: files, device and precision.
        threshold: segments whose class is less probable are left out.
        mask_threshold: pixels that are less probably in the mask of a segment are left out.
        overlap: segments that keep at most this share of their mask beside the others are left out.
        side: images are looked at with this long side at most.

    Raises:
        ModelError: its weights cannot be fetched or read.
    """
    from transformers import EomtForUniversalSegmentation, EomtImageProcessor

    def finish(processor: Any, outputs: Any, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = processor.post_process_panoptic_segmentation(
            outputs,
            sizes,
            threshold=threshold,
            mask_threshold=mask_threshold,
            overlap_mask_area_threshold=overlap,
        )
        return found

    kinds = (EomtForUniversalSegmentation, EomtImageProcessor)
    return open_network(tools, kinds, finish, first=0, side=side)  # ids from 0, and -1


REGIONS = RegionSource(
    open_eomt,
    files="WEIGHTS",
    packages=("transformers",),
    weights="tue-mps/coco_panoptic_eomt_large_640",
    network=True,
    ranges=RANGES,
    summary="things and surfaces by a plain ViT that was trained on COCO's masks",
    paper="arXiv:2503.19108",
    licence="MIT",
)
