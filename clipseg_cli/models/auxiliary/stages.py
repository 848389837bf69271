"""A frozen ResNet beside a tower: what its stages say of a patch is remembered too, where a few labels teach.

The package has one for students, distilled from the bundled model on drawn scenes. It sees edges and textures at every
patch, which a small transformer has mixed into its neighbours by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from clipseg_cli.config import BUNDLED_BACKBONE, BUNDLED_MODEL
from clipseg_cli.models.student.backbones import build_backbone, initialise
from clipseg_cli.models.student.folded import fold_norms
from clipseg_cli.models.weights.fingerprints import fingerprint
from clipseg_cli.models.weights.precision import computing_as_held, hold_weights_in

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import DenseFeatures, Reader

STAGES = (1, 2, 3, 4)
"""Photographs are told as well by the first three; drawings, which the network knows, are not."""

STRIDE = 32
"""Pixels between two features of the last stage; at 16 all four take 1.4 times as long, and teach half a point more."""


class Stages:
    """Maps of the stages of a ResNet.

    Args:
        net: normalised images [B, 3, H, W] -> a map [B, c, h, w] of each stage; in eval mode.
        dtype: that it computes in from here on.

    Attributes:
        fingerprint: equal for equal weights, whatever they are computed in.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        self.fingerprint = fingerprint(net, {"stages": STAGES, "stride": STRIDE})
        fold_norms(net)
        _pool_before_rectifying(net)
        hold_weights_in(net, dtype)
        self.net: nn.Module = net.to(memory_format=torch.channels_last)  # three times as fast

    @classmethod
    def own(cls, device: torch.device, dtype: torch.dtype) -> Stages:
        """The one in the package.

        Raises:
            ModelError: its weights are missing or damaged.
        """
        net, _ = build_backbone(BUNDLED_BACKBONE, STRIDE, STAGES)
        initialise(net, BUNDLED_BACKBONE, BUNDLED_MODEL)
        return cls(net.eval().requires_grad_(requires_grad=False).to(device), dtype)

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Normalised image [B, 3, H, W] -> a map of each stage, the first the largest."""
        with computing_as_held(self.net):
            return list(self.net(image.contiguous(memory_format=torch.channels_last)))


def _pool_before_rectifying(net: Any) -> None:
    """Have a ResNet of timm rectify a quarter of the numbers of its stem, in place; the maximum is the same."""
    if isinstance(net.act1, nn.ReLU) and isinstance(net.maxpool, nn.MaxPool2d):
        net.act1, net.maxpool = net.maxpool, net.act1


class ReaderWithStages:
    """A reader of dense features whose levels begin with the stages of another network.

    Args:
        reader: hands out levels.
        stages: sees the same images.
    """

    def __init__(self, reader: Reader, stages: Stages) -> None:
        self.reader, self.stages = reader, stages
        self.patch, self.logits, self.whole = reader.patch, reader.logits, getattr(reader, "whole", None)

    def __call__(self, image: Tensor, regions: Tensor | None = None) -> DenseFeatures:
        """As the reader."""
        found = self.reader(image, regions)
        assert found.levels is not None  # or else nobody asked for this
        return found._replace(levels=found.levels.above(self.stages(image)))


def with_stages(reader: Reader, stages: Stages | None) -> Reader:
    """The reader itself where there is no other network."""
    return reader if stages is None else ReaderWithStages(reader, stages)
