"""Batch normalisation folded into the convolutions before it: the same numbers with a pass over the maps less.

Only for a network that will not learn any more: a fixed mean and variance are a factor and an offset of each channel.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from collections.abc import Iterator

_NORM = re.compile("bn([0-9]+)")
"""How timm names the norm behind `conv1`, `conv2` ... of a block or of a stem."""


def fold_norms(network: nn.Module) -> None:
    """Fold every batch norm that stands directly behind a convolution into it, in place.

    Args:
        network: of blocks of timm's ResNets and of `nn.Sequential`, in eval mode.
    """
    for parent in list(network.modules()):
        for before, behind in list(_pairs(parent)):
            holder, name, convolution = _last(parent, before)
            norm = getattr(parent, behind)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(holder, name, fuse_conv_bn_eval(convolution, norm))
                setattr(parent, behind, _rest(norm))


def _pairs(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of two children, of which the second takes what the first gives."""
    names = [name for name, _ in parent.named_children()]
    if isinstance(parent, nn.Sequential):
        yield from pairwise(names)
        return
    for name in names:
        found = _NORM.fullmatch(name)
        if found and f"conv{found[1]}" in names:
            yield f"conv{found[1]}", name


def _last(parent: nn.Module, name: str) -> tuple[nn.Module, str, nn.Module]:
    """A child, or the last layer of a stem of several; and what holds it under which name."""
    child = getattr(parent, name)
    if isinstance(child, nn.Sequential) and len(child):
        return child, str(len(child) - 1), child[-1]
    return parent, name, child


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What timm does in the same layer behind the norm: an activation, or nothing."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()
