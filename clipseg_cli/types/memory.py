"""What labelled images taught a reading of the tower, ready to be asked for an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


@dataclass(frozen=True)
class Recall:
    """What a memory says of an image.

    Attributes:
        read: levels [B, F, h, w] of windows -> [B, M, h, w], which may be averaged over windows.
        judge: the averaged map [M, h, w] of an image -> logits [C, h, w]; what it says of unknown classes counts not.
        known: bool [C] classes that the memory has seen.
        trust: factor on the log probabilities of the words, among the classes that the memory knows.
        caution: [C] by how much the words must favour a class that only they know, in log probabilities.
        facts: for the record beside results: the bank, how it was read.
    """

    read: Callable[[Tensor], Tensor]
    judge: Callable[[Tensor], Tensor]
    known: Tensor
    trust: float
    caution: Tensor
    facts: Mapping[str, object]
