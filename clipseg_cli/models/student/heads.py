"""From the stages of a ResNet to features in the space of the words: the heads of DeepLabv2 and DeepLabv3+.

Convolutions begin with kaiming weights (normal, fan out), as everywhere in the published code but in its last
layer, in whose place stand the words here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from clipseg_cli.errors import UsageError
from clipseg_cli.models.student.synced_norm import joins_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

DEEPLABV2_DILATIONS = (6, 12, 18, 24)
DEEPLABV3PLUS_DILATIONS = (12, 24, 36)
LOW_LEVEL_CHANNELS = 48


class DeepLabV2Head(nn.Module):
    """Parallel dilated convolutions, each with batch norm and ReLU; their sum is the feature.

    Reference: chongzhou96/MaskCLIP@245d31f, mmseg/models/decode_heads/aspp_headv2.py.

    Args:
        channels: of the last stage.
        width: D.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_conv(channels, width, 3, dilation=d) for d in DEEPLABV2_DILATIONS)
        _kaiming(self)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """The last of the stages [B, c, h, w] -> [B, D, h, w]."""
        first, *others = self.branches
        features: Tensor = first(stages[-1])
        for branch in others:
            features = features + branch(stages[-1])
        return features


class DeepLabV3PlusHead(nn.Module):
    """Atrous pyramid with image pooling, refined with the first stage at stride 4 (arXiv:1802.02611).

    Args:
        low_channels: of the first stage.
        channels: of the last stage.
        width: D.
    """

    def __init__(self, low_channels: int, channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [_conv(channels, width, 1), *(_separable(channels, width, d) for d in DEEPLABV3PLUS_DILATIONS)]
        )
        self.pool = _conv(channels, width, 1)
        self.bottleneck = _conv(width * (len(self.branches) + 1), width, 3)
        self.low = _conv(low_channels, LOW_LEVEL_CHANNELS, 1)
        self.refine = nn.Sequential(_separable(width + LOW_LEVEL_CHANNELS, width), _separable(width, width))
        _kaiming(self)

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """First stage [B, c1, h, w] and last stage [B, c, h', w'] -> [B, D, h, w].

        Raises:
            UsageError: training with one crop, over which the norm behind the pooling cannot be computed.
        """
        low, high = stages[0], stages[-1]
        if self.training and len(high) == 1 and not joins_ranks(self.pool[1]):
            raise UsageError(
                "the head deeplabv3plus cannot learn from one crop at a time",
                hint="at least a batch size of 2 (for each process and part of a batch)",
            )
        pooled = self.pool(high.mean(dim=(2, 3), keepdim=True))  # [B, D, 1, 1]
        pyramid = [branch(high) for branch in self.branches]
        pyramid.append(pooled.expand_as(pyramid[0]))
        features = self.bottleneck(torch.cat(pyramid, dim=1))  # [B, D, h', w']
        features = F.interpolate(features, size=low.shape[-2:], mode="bilinear")  # [B, D, h, w]
        refined: Tensor = self.refine(torch.cat([features, self.low(low)], dim=1))
        return refined


class DilatedConv(nn.Conv2d):
    """A 3x3 convolution that keeps the size, without the rows and columns of its kernel that lie in the padding.

    Where the grid is no larger than the dilation, those beside the middle see nothing but zeros everywhere: on a crop
    of 128 pixels, at stride 8, two of the four branches of DeepLabv2 are products of matrices, a ninth of the work.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, h, w] -> [B, c', h, w]."""
        if (
            torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
        ):  # what is written down fits any size
            return super().forward(x)
        weight, (down, across) = self.weight, self.dilation
        rows, columns = (0 if d >= side else d for d, side in zip(self.dilation, x.shape[-2:], strict=True))
        if not rows:
            weight = weight[:, :, 1:2]
        if not columns:
            weight = weight[..., 1:2]
        return F.conv2d(x, weight, self.bias, 1, (rows, columns), (down, across), self.groups)


def _conv(inputs: int, outputs: int, kernel: int, *, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    kind = DilatedConv if dilation > 1 else nn.Conv2d
    return nn.Sequential(
        kind(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        _conv(inputs, inputs, 3, dilation=dilation, groups=inputs), _conv(inputs, outputs, 1)
    )


def _kaiming(head: nn.Module) -> None:
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
