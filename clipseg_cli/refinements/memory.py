"""A memory of labelled images decides between the classes that it knows; words decide about all others.

The words say how probable it is that a place shows any of the classes of the memory, and how probable each class is
that only they know. Inside the share of the memory its own classifier decides, and the words count there as much as
they proved true on the labelled images. A class that only words know must be more probable than it was found to be on
those images, where it is nowhere. With all classes known the words lose nothing but a voice that was not true.

`--set memory.classifier=rns` lets RNS (arXiv:2602.23339) decide instead, which teaches a classifier for every image.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.similarity import REMOVED, merge_aliases
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import Context, LogitMaps


NETWORK, RNS = "network", "rns"
"""What decides between the classes of a bank."""


def word_log_probabilities(cosines: Tensor, query_to_class: Sequence[int], scale: float) -> Tensor:
    """Cosines [Q, ...] -> log probability of the best word of each class [C, ...]."""
    return merge_aliases((scale * cosines).log_softmax(dim=0), query_to_class, 1 + max(query_to_class))


def group_odds(words: Tensor, known: Tensor) -> Tensor:
    """By how much each class is more probable than all that the memory knows together: [C, ...] log probabilities."""
    return words - words[known].logsumexp(dim=0)


def joined(words: Tensor, recalled: Tensor, known: Tensor, trust: float, caution: Tensor) -> Tensor:
    """Log probabilities of all classes, up to a constant at each place.

    Args:
        words: [C, ...] log probabilities by the words.
        recalled: [C, ...] logits by the memory.
        known: bool [C], at least one.
        trust: factor on `words` among the known.
        caution: [C] taken off the classes that only the words know.

    Returns:
        [C, ...]; those of the known are at most 0 together.
    """
    inside = (recalled[known] + trust * words[known]).log_softmax(dim=0)
    found = group_odds(words, known) - caution.view(-1, *[1] * (words.ndim - 1))
    return found.masked_scatter(known.view(-1, *[1] * (words.ndim - 1)), inside)


def refine(
    maps: LogitMaps, context: Context, value: str, *, classifier: str = NETWORK, steps: int = 700
) -> LogitMaps:
    """Each class speaks by its first word from here on; the others are removed.

    Args:
        maps: of an image, on one grid.
        context: of the image, with what the bank taught.
        value: of the option.
        classifier: "network" learns once from all images; "rns" from what each image retrieves, anew for each. It has
            been chosen where the bank was read.
        steps: of "rns".
    """
    del value, classifier, steps
    recall, classes = context.recall, context.words.classes
    assert recall is not None and maps.memory is not None  # or else nothing turned the step on
    scale = context.softmax_scale
    words = word_log_probabilities(maps.maps[0], classes.query_to_class, scale)
    found = joined(words, recall.judge(maps.memory), recall.known, recall.trust, recall.caution)
    logits = torch.full_like(maps.maps[0], REMOVED)
    first = [classes.query_to_class.index(c) for c in range(len(classes)) if c in classes.query_to_class]
    logits[first] = found.clamp(min=scale * REMOVED)[[classes.query_to_class[q] for q in first]] / scale
    return dataclasses.replace(maps, maps=(logits,), memory=None)


REFINEMENT = Refinement(
    refine,
    scope="grid",
    order=0,
    needs=("levels",),
    ranges={"classifier": (NETWORK, RNS), "steps": (1, 100_000)},
    summary="labelled images decide between the classes that they show",
)
