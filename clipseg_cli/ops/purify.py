"""Which classes are in a window, by how their maps hold together (FreeCP, arXiv:2508.00557).

Letters: C classes, h x w patches, n of them. Boxes are (top, bottom, left, right) in patches, ends left out.

Reference: chenqi1126/FreeCP@6946aa7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

Box = tuple[int, int, int, int]

ROUNDS = 3
LEVEL = 0.4
"""Share of the highest value of a map from which a patch is foreground."""


def affinity(attention: Tensor) -> Tensor:
    """Attention between patches [n, n], made doubly stochastic, symmetric, and applied twice: [n, n]."""
    for _ in range(ROUNDS):
        attention = attention / attention.sum(dim=0, keepdim=True)
        attention = attention / attention.sum(dim=1, keepdim=True)
    attention = (attention + attention.T) / 2
    return attention @ attention


def boxes_of(values: Tensor, level: float = LEVEL) -> list[Box]:
    """Boxes around what is high in a map [h, w] in [0, 1]: of all outlines, holes included.

    As published, a box that touches the right or the lower border ends before the last column or row.
    """
    steps = (values.clamp(0, 1) * 255).floor().to(torch.uint8).cpu().numpy()
    mask = (steps > int(level * steps.max())).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    height, width = mask.shape
    found = []
    for outline in outlines:
        left, top, wide, high = cv2.boundingRect(outline)
        found.append((top, min(top + high, height - 1), left, min(left + wide, width - 1)))
    return found


def refined_maps(prob: Tensor, graph: Tensor, level: float = LEVEL) -> Tensor:
    """Maps of the classes that flow along the affinity, each from 0 to 1.

    Args:
        prob: [C, h, w] in [0, 1], with one 0 and one 1 over all words.
        graph: [n, n] of `affinity`.
        level: see `boxes_of`.

    Returns:
        [C, h, w].
    """
    mask = torch.zeros_like(prob)
    for one, own in zip(prob, mask, strict=True):
        for top, bottom, left, right in boxes_of(one, level):
            own[top:bottom, left:right] = 1
    flowed = (mask * prob).flatten(1) @ graph.T  # [C, n]
    low, high = flowed.amin(dim=1, keepdim=True), flowed.amax(dim=1, keepdim=True)
    return ((flowed - low) / (high - low + 1e-8)).view_as(prob)


def consistency(prob: Tensor, refined: Tensor) -> Tensor:
    """How well maps [C, h, w] agree with what became of them: [C]."""
    before, after = prob.flatten(1), refined.flatten(1)
    return (before * after).sum(dim=1) / (before.sum(dim=1) + after.sum(dim=1) + 1e-8)


def soft_iou(maps: Tensor) -> Tensor:
    """[K, h, w] in [0, 1] -> [K, K] shared part over union."""
    flat = maps.flatten(1)
    shared = torch.minimum(flat[:, None], flat).sum(dim=2)
    return shared / torch.maximum(flat[:, None], flat).sum(dim=2).clamp(min=1e-12)


def components(linked: Tensor) -> list[list[int]]:
    """Groups of what is linked, in order of their first: [K, K] bool -> numbers."""
    left, groups = list(range(len(linked))), []
    while left:
        group, front = {left[0]}, [left[0]]
        while front:
            near = [i for i in left if bool(linked[front[-1], i]) and i not in group]
            front.pop()
            group.update(near)
            front += near
        groups.append(sorted(group))
        left = [i for i in left if i not in group]
    return groups


def settled(
    refined: Tensor,
    kept: Sequence[int],
    overlap: float,
    judge: Callable[[Box, Sequence[int]], int],
    level: float = LEVEL,
) -> list[int]:
    """Of classes that lie in the same places, those that what is there looks like.

    Args:
        refined: [C, h, w] of `refined_maps`.
        kept: classes that may be there.
        overlap: soft IoU from which two lie in the same place.
        judge: which of some classes the contents of a box look like.
        level: see `boxes_of`.

    Returns:
        Ascending.
    """
    if len(kept) < 2:
        return list(kept)
    linked = soft_iou(refined[list(kept)]) >= overlap
    stay: set[int] = set()
    for group in components(linked):
        classes = [kept[i] for i in group]
        if len(classes) == 1:
            stay.update(classes)
            continue
        for box in boxes_of(refined[classes].mean(dim=0), level):
            top, bottom, left, right = box
            empty = bottom <= top or right <= left
            stay.update(classes if empty else [judge(box, classes)])
    return sorted(stay)
