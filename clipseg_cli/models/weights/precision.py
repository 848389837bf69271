"""Frozen weights in the type they are computed in, cast once and not in every forward pass."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

MATRICES = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
"""Layers that are products of matrices: nearly all of the time, and all that half precision makes faster."""


class LayerNorm(nn.LayerNorm):
    """Handed on in the type that came in: the tokens stay narrow.

    Where its weights are held in that type too, the kernel widens a row in registers. Autocast on CUDA would write all
    tokens in float32 before it and narrow them behind it, a sixth of the time of ViT-B-16 on an H200.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., W]."""
        if x.dtype == self.weight.dtype != torch.float32:
            with torch.autocast(x.device.type, enabled=False):
                return super().forward(x)
        return super().forward(x).to(x.dtype)


def hold_weights_in(module: Any, dtype: torch.dtype) -> None:
    """Cast the weights of all matrix products of a frozen network, in place; float32 leaves them as they are.

    Positions, class tokens and what else is added stay in float32: they cost nothing, and autocast, under which
    the network still runs, brings the types together. So do norms, but `LayerNorm` on CUDA: a CPU takes both types.

    Args:
        module: a network in eval mode; weights that several modules share stay shared.
        dtype: that `torch.autocast` computes in.
    """
    if dtype == torch.float32:
        return
    for layer in module.modules():
        if isinstance(layer, MATRICES) or (isinstance(layer, LayerNorm) and layer.weight.is_cuda):
            for parameter in layer.parameters():
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(dtype)


def computing_as_held(module: nn.Module) -> AbstractContextManager[object]:
    """Autocast to the type that a network's weights were cast to; nothing where they are float32."""
    dtype = held_type(module)
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(next(module.parameters()).device.type, dtype)


def held_type(module: nn.Module) -> torch.dtype:
    """The type that a network's matrices were cast to; float32 where they are as they were."""
    narrow = (p.dtype for p in module.parameters() if p.dtype in (torch.bfloat16, torch.float16))
    return next(narrow, torch.float32)
