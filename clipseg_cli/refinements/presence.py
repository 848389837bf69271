"""Which classes are in an image at all; the others are dropped before the argmax.

Most words of a long list are not in the image, and each of them wins somewhere by chance. Two signs speak for a
class, and one is enough to keep it:

- spatial: some patches are sure of it, and its map hardly changes when each patch takes over what patches like it say.
  What is there covers whole things; what is not lights up in scattered patches. (Patches that tag images: TagCLIP,
  arXiv:2312.12828. Consistency: after FreeCP, arXiv:2508.00557. The product of both, and its limit, are ours.)
- global: CLIP finds the whole window more probably of this class than of all others together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.ops.similarity import merge_aliases
from clipseg_cli.refinements._absent import without_absent
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import Context, LogitMaps, WindowBatch, Words

PRESENT = 0.15
"""Spatial evidence from which a class counts as present. On the 60 training images of samples/emoji-voc anything from
0.15 to 0.3 scores about the same, and the least of these loses the fewest classes that are there."""

CERTAIN = 0.5
"""Probability for a whole window from which a class counts as present."""

SUREST = 0.02
"""Share of the patches that speak for a class."""

ALIKE = 0.3
"""Cosine, once the mean of the window is taken off, from which patches count as alike."""

LEAST = 1e-6


def presence(
    logits: Tensor,
    tokens: Tensor,
    whole: Tensor | None,
    query_to_class: Sequence[int],
    *,
    scale: float = 100.0,
    present: float = PRESENT,
    certain: float = CERTAIN,
    surest: float = SUREST,
    alike: float = ALIKE,
) -> Tensor:
    """What speaks for each class in each window.

    Args:
        logits: [B, Q, h, w] cosines of the patches.
        tokens: [B, W, h, w] of the same patches, of any length.
        whole: [B, Q] cosines of the windows as wholes; None where the model has no embedding of those.
        query_to_class: [Q] class of each word.
        scale: factor on cosines before the softmax over words.
        present, certain: spatial evidence, and probability for a whole window, from which a class is present.
        surest: share of the patches that speak for a class.
        alike: cosine from which patches count as alike.

    Returns:
        [B, C]; from 1 on the class is present.
    """
    classes = max(query_to_class) + 1

    def of_classes(cosines: Tensor) -> Tensor:
        words = (scale * cosines).softmax(dim=1).transpose(0, 1)
        return merge_aliases(words, query_to_class, classes).transpose(0, 1)

    prob = of_classes(logits)  # [B, C, h, w]
    signs = local_evidence(prob, surest) * spatial_consistency(prob, tokens, alike) / present
    return signs if whole is None else torch.maximum(signs, of_classes(whole) / certain)


def local_evidence(prob: Tensor, surest: float = SUREST) -> Tensor:
    """Mean probability of the surest patches of each class: [B, C, h, w] -> [B, C] in [0, 1]."""
    flat = prob.flatten(2)
    return flat.topk(max(1, round(surest * flat.shape[2])), dim=2).values.mean(dim=2)


def spatial_consistency(prob: Tensor, tokens: Tensor, threshold: float = ALIKE) -> Tensor:
    """How well each class map agrees with itself after it has been smoothed over patches that are alike.

    Args:
        prob: [B, C, h, w] probabilities.
        tokens: [B, W, h, w] of the same patches, of any length.
        threshold: cosine from which patches count as alike.

    Returns:
        [B, C] in [0, 1]: the shared part of both maps over their union.
    """
    flat = tokens.flatten(2).float()  # [B, W, n]
    unit = F.normalize(flat - flat.mean(dim=2, keepdim=True), dim=1)
    alike = unit.mT @ unit  # [B, n, n]
    # A patch is always like itself, even where all are the same and nothing is left of them.
    alike = torch.where(alike > threshold, alike, 0.0) + LEAST * torch.eye(
        alike.shape[1], device=alike.device
    )
    before = prob.flatten(2)  # [B, C, n]
    after = before @ (alike / alike.sum(dim=2, keepdim=True)).mT
    shared, union = torch.minimum(before, after).sum(dim=2), torch.maximum(before, after).sum(dim=2)
    return shared / union.clamp(min=LEAST)


def observe(
    windows: WindowBatch,
    words: Words,
    *,
    present: float = PRESENT,
    certain: float = CERTAIN,
    surest: float = SUREST,
    alike: float = ALIKE,
) -> Tensor:
    """`presence` of the classes in each window of a batch: [B, C]."""
    return presence(
        windows.logits,
        F.interpolate(windows.dense.tokens.float(), windows.logits.shape[2:]),
        windows.whole,
        words.classes.query_to_class,
        scale=words.scale,
        present=present,
        certain=certain,
        surest=surest,
        alike=alike,
    )


def refine(maps: LogitMaps, context: Context, value: str) -> LogitMaps:
    """The maps without the classes that no window of the image speaks for."""
    del value
    return without_absent(maps, context, "presence")


REFINEMENT = Refinement(
    refine,
    scope="grid",
    order=10,
    observe=observe,
    together=True,
    chosen_by=("presence", "evidence"),
    needs=("whole",),
    ranges={"present": (0, 1), "certain": (0, 1), "surest": (0, 1), "alike": (-1, 1)},
    summary="classes that are nowhere in the image are dropped",
)
