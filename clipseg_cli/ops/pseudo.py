"""Pseudo labels: filling what nobody labelled, and nothing else."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.reduce import upsample, winners
from clipseg_cli.ops.similarity import class_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def fill_unlabelled(labels: Tensor, maps: Tensor, class_ids: Sequence[int]) -> Tensor:
    """Replace negative labels by the best of the classes allowed as pseudo labels.

    Args:
        labels: [..., H, W] integers; below 0 is unlabelled, everything else (255 too) stays.
        maps: [..., K, h, w] scores of the allowed classes, of any size.
        class_ids: [K] their ids.

    Returns:
        [..., H, W], same dtype as `labels`.

    Source: chongzhou96/MaskCLIP@245d31f, mmseg/models/decode_heads/maskclip_plus_head.py, label_sanity_check
    and assign_label.
    """
    full = upsample(maps.reshape(-1, *maps.shape[-3:]), (labels.shape[-2], labels.shape[-1]))
    best = winners(full)
    if tuple(class_ids) != tuple(range(full.shape[1])):
        best = class_index(tuple(class_ids), labels.device)[best]
    return torch.where(labels < 0, best.view_as(labels).to(labels.dtype), labels)


def count_leaked(labels: Tensor, table: Tensor) -> Tensor:
    """How many pixels of a ground truth show a class that nobody may see; the host need not wait for it.

    Args:
        labels: integers of any shape, at least -1, as they are before anything is filled.
        table: bool, for each label, counted from -1, whether nobody may see it; see `leak_table`.

    Returns:
        A scalar in float32.
    """
    return table[labels + 1].sum(dtype=torch.float32)


@lru_cache(maxsize=4)
def leak_table(class_ids: tuple[int, ...], highest: int, device: torch.device) -> Tensor:
    """For each label from -1 to `highest`, whether it is one of these classes: bool [highest + 2]."""
    table = torch.zeros(highest + 2, dtype=torch.bool)
    table[[i + 1 for i in class_ids]] = True
    return table.to(device, non_blocking=True)


def leaked_classes(labels: Tensor, class_ids: Sequence[int]) -> list[int]:
    """Those of the unlabelled classes that occur in a ground truth all the same; must be none.

    Args:
        labels: integers of any shape, as they are before anything is filled.
        class_ids: classes whose ground truth nobody may see.

    Source: chongzhou96/MaskCLIP@245d31f, mmseg/models/decode_heads/maskclip_plus_head.py, label_sanity_check.
    """
    ids = torch.as_tensor(class_ids, dtype=labels.dtype, device=labels.device)
    return sorted(set(labels[torch.isin(labels, ids)].tolist()))
