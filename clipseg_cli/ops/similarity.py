"""From features to scores of words."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

REMOVED = -100.0
"""Score of a class that was removed: far below any cosine."""


def cosine_logits(features: Tensor, text_embeds: Tensor) -> Tensor:
    """Cosine of every patch with every word, in float32.

    Args:
        features: [B, D, h, w], any length along D.
        text_embeds: [Q, D], unit length.

    Returns:
        [B, Q, h, w] in [-1, 1].

    Raises:
        ShapeError: features and words live in spaces of different width.
    """
    if features.shape[1] != text_embeds.shape[1]:
        raise ShapeError(f"features have {features.shape[1]} channels, words {text_embeds.shape[1]}")
    unit = F.normalize(features.float(), dim=1)
    return torch.einsum("bdhw,qd->bqhw", unit, text_embeds.float())


def merge_aliases(values: Tensor, query_to_class: Sequence[int], num_classes: int) -> Tensor:
    """The best word speaks for its class.

    Args:
        values: [Q, ...] one map for each word.
        query_to_class: [Q] class id of each word; every class must occur.
        num_classes: C.

    Returns:
        [C, ...].
    """
    index = class_index(tuple(query_to_class), values.device)
    index = index.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
    merged = values.new_full((num_classes, *values.shape[1:]), -torch.inf)
    return merged.scatter_reduce_(0, index, values, "amax")


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def class_index(query_to_class: tuple[int, ...], device: torch.device) -> Tensor:
    """Long [Q]: the class of each word, where it is needed; kept, since it is the same for all images."""
    return torch.tensor(query_to_class).to(device, non_blocking=True)


def remove_classes(logits: Tensor, absent: Tensor, query_to_class: Sequence[int] | None = None) -> Tensor:
    """Give the words of the classes marked in `absent` [..., C] the score REMOVED everywhere: [..., Q, h, w]."""
    words = absent
    if query_to_class is not None:
        words = absent.index_select(-1, class_index(tuple(query_to_class), absent.device))
    return logits.masked_fill(words[..., None, None], REMOVED)


def average_prompts(prompt_embeds: Tensor) -> Tensor:
    """One embedding for a word from its prompts: normalise each, average, normalise again.

    Args:
        prompt_embeds: [..., T, D] raw outputs of the text tower.

    Returns:
        [..., D], unit length.

    Source: chongzhou96/MaskCLIP@245d31f, tools/maskclip_utils/prompt_engineering.py.
    """
    return F.normalize(F.normalize(prompt_embeds, dim=-1).mean(dim=-2), dim=-1)
