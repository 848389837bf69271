"""Memories that are ready to be asked for an image: what labelled images taught, and regions of unlabelled ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from clipseg_cli.types.reading import Levels


@dataclass(frozen=True)
class Recall:
    """What a memory says of an image.

    Attributes:
        read: levels of windows -> [B, M, h, w], which may be averaged over windows.
        judge: the averaged map [M, h, w] of an image -> logits [C, h, w]; what it says of unknown classes counts not.
        known: bool [C] classes that the memory has seen.
        trust: factor on the log probabilities of the words, among the classes that the memory knows.
        caution: [C] by how much the words must favour a class that only they know, in log probabilities.
        facts: for the record beside results: the bank, how it was read.
    """

    read: Callable[[Levels], Tensor]
    judge: Callable[[Tensor], Tensor]
    known: Tensor
    trust: float
    caution: Tensor
    facts: Mapping[str, object]


@dataclass(frozen=True)
class RegionBank:
    """Regions of unlabelled images: what each looks like, and what it means.

    Attributes:
        keys: unit [B, K] what a region looks like.
        values: unit [B, D] its feature in the space of the words.
        key_encoder: normalised images [1, 3, H, W] -> [1, K, h, w], by the network that the keys are of; None where
            they are values of the tower itself.
        facts: for the record beside results.
    """

    keys: Tensor
    values: Tensor
    key_encoder: Callable[[Tensor], Tensor] | None
    facts: Mapping[str, object]
