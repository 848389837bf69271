"""Networks of transformers whose masks are a partition already: what EoMT and Mask2Former have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from clipseg_cli.regions._pixels import as_tensor
from clipseg_cli.types import RegionMap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from clipseg_cli.types import DecodedImage, RegionMaker, RegionTools


RANGES = {"threshold": (0, 1), "mask_threshold": (0, 1), "overlap": (0, 1), "side": (64, 4096)}
"""Of the hyper-parameters that both have."""


class PanopticNetwork:
    """A `RegionMaker` by a network, its image processor and the post-processing of that.

    Args:
        net: in eval mode, on its device.
        processor: of transformers, made from the same files.
        finish: (processor, outputs, sizes [n] of (H, W)) -> for each image {"segmentation": [H, W]}.
        first: the number of the first segment in what that gives; smaller ones mean that there is none.
        side: images are looked at with this long side at most; ids are brought to the image by repeating them.
        tools: device and precision.
    """

    def __init__(
        self,
        net: Any,
        processor: Any,
        finish: Callable[[Any, Any, list[tuple[int, int]]], list[dict[str, Any]]],
        *,
        first: int,
        side: int,
        tools: RegionTools,
    ) -> None:
        self.net, self.processor, self.finish, self.first, self.side = net, processor, finish, first, side
        self.device, self.dtype = tools.device, tools.dtype

    @torch.inference_mode()
    def __call__(self, images: Sequence[DecodedImage]) -> list[RegionMap]:
        """One id map for each image, 0 where no segment was sure enough."""
        pixels = [as_tensor(image.pixels, self.side) for image in images]
        sizes = [(one.shape[1], one.shape[2]) for one in pixels]
        given = self.processor(images=pixels, return_tensors="pt").to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            outputs = self.net(**given)
        for key in ("class_queries_logits", "masks_queries_logits"):
            outputs[key] = outputs[key].float()
        found = self.finish(self.processor, outputs, sizes)
        return [RegionMap(self._ids(one["segmentation"]).numpy()) for one in found]

    def _ids(self, segments: Tensor) -> Tensor:
        """Ids from 1: [H, W] int32 on the CPU."""
        return (segments.cpu().int() + (1 - self.first)).clamp(min=0)


def open_network(
    tools: RegionTools,
    kinds: tuple[Any, Any],
    finish: Callable[[Any, Any, list[tuple[int, int]]], list[dict[str, Any]]],
    *,
    first: int,
    side: int,
) -> RegionMaker:
    """Load a network and its image processor, classes of transformers, from the files that `tools` name.

    Raises:
        ModelError: they cannot be fetched or read.
    """
    network, processor = kinds
    prepare = tools.load(processor, tools.files)
    net = tools.load(network, tools.files).to(tools.device)
    return PanopticNetwork(net, prepare, finish, first=first, side=side, tools=tools)
