"""Saliency decides where the background is (CLIP-DIY, arXiv:2309.14289)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.reduce import layer_tile, stretched
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.ops.reduce import Layer
    from clipseg_cli.types import Context, LogitMaps, Tile


LEAST = 0.01
"""Probability that is left to what saliency excludes, where a memory of labelled images has another opinion."""


class SaliencyFusion:
    """Logits weighed by where there is something: background by 1 - saliency, all others by saliency.

    Negative ones are multiplied as they are, as published.

    Args:
        saliency: [1, h, w] in [0, 1], brought to the size of the result.
        background: bool [Q], the words of the background class.

    Source: wysoczanska/clip-diy@f88932d, src/models/clip_diy.py, forward.
    """

    margin = 0

    def __init__(self, saliency: Layer, background: Tensor) -> None:
        self.saliency, self.background = saliency, background

    def __call__(self, logits: Tensor, tile: Tile, queries: Sequence[int]) -> Tensor:
        """[n, rows, columns] -> the same, before the softmax, which has no temperature."""
        foreground = layer_tile(self.saliency, tile)  # [1, rows, columns]
        behind = self.background
        if len(queries) < len(behind):
            behind = behind[torch.as_tensor(queries, device=logits.device)]
        return logits * torch.where(behind[:, None, None], 1 - foreground, foreground)


class SaliencyPrior(SaliencyFusion):
    """The same for log probabilities, which a product would turn around: saliency is how probable things are.

    Args:
        saliency, background: as of `SaliencyFusion`.
        scale: by which the log probabilities were divided.
    """

    def __init__(self, saliency: Layer, background: Tensor, scale: float) -> None:
        super().__init__(saliency, background)
        self.scale = scale

    def __call__(self, logits: Tensor, tile: Tile, queries: Sequence[int]) -> Tensor:
        """[n, rows, columns] -> the same."""
        prior = super().__call__(torch.ones_like(logits), tile, queries)
        return logits + prior.clamp(min=LEAST).log() / self.scale


def refine(maps: LogitMaps, context: Context, value: str) -> LogitMaps:
    """The maps weighed at full size by the saliency of the image, wherever it comes from."""
    del value
    background = context.words.of(context.words.classes.background or 0)
    saliency = stretched(context.auxiliary["saliency"], context.size)
    if context.recall is None:
        return maps.then(SaliencyFusion(saliency, background))
    return maps.then(
        SaliencyPrior(saliency, background, context.softmax_scale)
    )  # a memory says log probabilities


REFINEMENT = Refinement(
    refine,
    scope="pixel",
    order=20,
    needs=("background", "saliency"),
    summary="background where nothing stands out, things where something does",
    paper="arXiv:2309.14289",
    reference="wysoczanska/clip-diy@f88932d",
)
