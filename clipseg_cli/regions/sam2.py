"""SAM 2: a mask for each point of a grid, the good ones kept (arXiv:2408.00714); larger masks cover smaller ones.

Code and weights: facebookresearch/sam2, Apache-2.0; in transformers as Sam2Model.

The pipeline "mask-generation" of transformers spreads its points as SAM 1 does, over an image that keeps its aspect,
while SAM 2 stretches images to a square; so the grid is laid here, and the rest is the library's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clipseg_cli.ops.regions import id_map_by_area
from clipseg_cli.regions._pixels import as_tensor
from clipseg_cli.types import RegionMap, RegionSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import DecodedImage, RegionMaker, RegionTools

POINTS_AT_ONCE = 64


class AutomaticMasks:
    """A `RegionMaker` by SAM 2.

    Args:
        net, processor: `Sam2Model` in eval mode, and `Sam2ImageProcessor`.
        tools: device and precision.
        points, masks, iou, stability, nms, side: see `open_sam2`.
    """

    def __init__(
        self,
        net: Any,
        processor: Any,
        tools: RegionTools,
        *,
        points: int,
        masks: int,
        iou: float,
        stability: float,
        nms: float,
        side: int,
    ) -> None:
        self.net, self.processor, self.device, self.dtype = net, processor, tools.device, tools.dtype
        self.points, self.several, self.side = points, masks > 1, side
        self.iou, self.stability, self.nms = iou, stability, nms

    @torch.inference_mode()
    def __call__(self, images: Sequence[DecodedImage]) -> list[RegionMap]:
        """One id map for each image, 0 where no mask is."""
        pixels = [as_tensor(image.pixels, self.side) for image in images]
        given = self.processor(images=pixels, return_tensors="pt")["pixel_values"].to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            levels = self.net.get_image_embeddings(given)
            grid = point_grid(self.points, (given.shape[2], given.shape[3])).to(self.device)
            return [
                RegionMap(self._ids([level[i : i + 1] for level in levels], grid, one.shape[1:]))
                for i, one in enumerate(pixels)
            ]

    def _ids(self, levels: list[Tensor], grid: Tensor, size: Sequence[int]) -> Any:
        height, width = size
        masks: list[Any] = []
        scores, boxes = [], []
        for points in grid.split(POINTS_AT_ONCE):
            found = self.net(
                input_points=points[None, :, None],  # [1, n, 1, 2]
                input_labels=torch.ones(1, len(points), 1, dtype=torch.long, device=self.device),
                image_embeddings=levels,
                multimask_output=self.several,
            )
            full = self.processor.post_process_masks(
                found.pred_masks.float(), [(height, width)], binarize=False
            )
            kept = self.processor.filter_masks(
                full[0],
                found.iou_scores[0].float(),
                (height, width),
                [0, 0, width, height],
                pred_iou_thresh=self.iou,
                stability_score_thresh=self.stability,
            )
            masks += kept[0]
            scores.append(kept[1].cpu())
            boxes.append(kept[2].cpu())
        if masks:
            masks = self.processor.post_process_for_mask_generation(
                masks, torch.cat(scores), torch.cat(boxes), self.nms
            )[0]
        if not masks:
            return torch.zeros(height, width, dtype=torch.int32).numpy()
        return id_map_by_area(torch.stack(masks)).numpy()


def point_grid(side: int, size: tuple[int, int]) -> Tensor:
    """The middles of side x side equal cells of (H, W) pixels: [side * side, 2] as (x, y)."""
    middles = (torch.arange(side) + 0.5) / side
    rows, columns = torch.meshgrid(middles * size[0], middles * size[1], indexing="ij")
    return torch.stack([columns, rows], dim=-1).view(-1, 2)


def open_sam2(
    tools: RegionTools,
    *,
    points: int = 32,
    masks: int = 1,
    iou: float = 0.4,
    stability: float = 0.4,
    nms: float = 0.7,
    side: int = 1024,
) -> RegionMaker:
    """Automatic masks, with the values with which CorrCLIP is published.

    Args:
        tools: files, device and precision.
        points: on each side of the grid; 8 is 16 times as fast.
        masks: of each point: 1, or 3 of different extent.
        iou: masks that SAM 2 itself thinks worse are left out.
        stability: masks whose extent depends more than that on the threshold are left out.
        nms: of masks whose boxes overlap more, only the surest is kept.
        side: masks are made for an image of this long side at most.

    Raises:
        ModelError: its weights cannot be fetched or read.
    """
    from transformers import Sam2ImageProcessor, Sam2Model

    processor = tools.load(Sam2ImageProcessor, tools.files)
    net = tools.load(Sam2Model, tools.files).to(tools.device)
    return AutomaticMasks(
        net, processor, tools, points=points, masks=masks, iou=iou, stability=stability, nms=nms, side=side
    )


REGIONS = RegionSource(
    open_sam2,
    files="WEIGHTS",
    packages=("transformers",),
    weights="facebook/sam2.1-hiera-large",
    network=True,
    ranges={
        "points": (1, 128),
        "masks": (1, 3),
        "iou": (0, 1),
        "stability": (0, 1),
        "nms": (0, 1),
        "side": (64, 4096),
    },
    summary="a mask for each point of a grid, of anything; slow",
    paper="arXiv:2408.00714",
    licence="Apache-2.0",
)
