"""Mask2Former: panoptic segments of COCO by masked attention (arXiv:2112.01527).

In transformers as Mask2FormerForUniversalSegmentation; facebook tags its weights with the licence "other".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipseg_cli.regions._panoptic import RANGES, open_network
from clipseg_cli.types import RegionSource

if TYPE_CHECKING:
    from clipseg_cli.types import RegionMaker, RegionTools


def open_mask2former(
    tools: RegionTools,
    *,
    threshold: float = 0.5,
    mask_threshold: float = 0.5,
    overlap: float = 0.8,
    side: int = 1024,
) -> RegionMaker:
    """Its panoptic segments, of which there is nearly always one at every pixel.

    Args:
        tools: files, device and precision.
        threshold: segments whose class is less probable are left out.
        mask_threshold: pixels that are less probably in the mask of a segment count as outside, where the share of it
            that is left is measured.
        overlap: segments that keep at most this share of their mask beside the others are left out.
        side: images are looked at with this long side at most.

    Raises:
        ModelError: its weights cannot be fetched or read.
    """
    from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor

    def finish(processor: Any, outputs: Any, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = processor.post_process_panoptic_segmentation(
            outputs,
            threshold=threshold,
            mask_threshold=mask_threshold,
            overlap_mask_area_threshold=overlap,
            label_ids_to_fuse=set(),
            target_sizes=sizes,
        )
        return found

    kinds = (Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor)
    return open_network(tools, kinds, finish, first=1, side=side)  # ids from 1; 0 and -1 are none


REGIONS = RegionSource(
    open_mask2former,
    files="WEIGHTS",
    packages=("transformers",),
    weights="facebook/mask2former-swin-large-coco-panoptic",
    network=True,
    ranges=RANGES,
    summary="things and surfaces by a Swin transformer that was trained on COCO's masks",
    paper="arXiv:2112.01527",
    licence="other (see the model's page)",
)
