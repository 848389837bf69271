"""What tells one set of weights from another."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn


def fingerprint(model: nn.Module, config: Mapping[str, Any]) -> str:
    """16 hex digits over all weights in order of their names, and over what turns them into a function.

    The configuration belongs to it because the same weights with another activation give other features.
    """
    return fingerprint_of(sorted(model.state_dict().items()), config)


def fingerprint_of(weights: Iterable[tuple[str, Tensor]], config: Mapping[str, Any]) -> str:
    """`fingerprint` of weights in the order of their names, which need not all be in memory at once."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for key, tensor in weights:
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def tower_fingerprint(visual: nn.Module) -> str:
    """That of an image tower by itself, whatever the words."""
    return fingerprint(visual, {"kind": type(visual).__name__})
