"""From the logits of an image to one class a pixel, with the probability that it won by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from clipseg_cli.ops.logits import class_probabilities, reduce_logits

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import Context, LogitMaps

CLASS_MAPS_BYTES = 256 << 20
"""Full-size maps of single classes that are made, and refined, at once; at least one is, however large."""

BAND = 1 << 22
"""Pixels that are decided at once."""


class Decision(NamedTuple):
    """What came out for an image.

    Attributes:
        labels: [H, W] class ids.
        confidence: [H, W] float32 in [0, 1], probability of the label that won.
        log_total: [H, W], of which maps of single classes can be made; None where nobody will ask for any.
    """

    labels: Tensor
    confidence: Tensor
    log_total: Tensor | None


def decide(
    maps: LogitMaps, context: Context, background_threshold: float, *, totals: bool = False
) -> Decision:
    """One label a pixel.

    Args:
        maps: refined logits.
        context: of the image.
        background_threshold: winners less probable than this become background, if there is one; 0 is off.
        totals: keep what maps of single classes are made of.
    """
    words = context.words
    reduced = reduce_logits(maps, context.size, context.softmax_scale, totals=totals)
    winner, confidence = reduced.winner, reduced.score
    labels = torch.empty(winner.shape, dtype=words.class_of.dtype, device=winner.device)
    background = words.classes.background
    rows = max(1, BAND // winner.shape[1])
    # An index takes eight bytes a pixel while it is looked up, and a threshold several maps: never of a whole image.
    for band in (slice(top, top + rows) for top in range(0, len(winner), rows)):
        own = words.class_of[winner[band].long()]
        if background_threshold > 0 and background is not None:
            sure = confidence[band]
            unsure = (sure < background_threshold) & (own != background)
            own = own.masked_fill(unsure, background)
            confidence[band] = torch.where(unsure, 1 - sure, sure)
        labels[band] = own
    return Decision(labels, confidence, reduced.log_total)


class ClassMaps:
    """Probability maps of single classes, as they were when the pixels were decided, each by itself.

    Some are made at once, so that steps at full size are taken once for all words and not once for each class.

    Args:
        maps, context: as `decide` had them.
        log_total: of its decision.
    """

    def __init__(self, maps: LogitMaps, context: Context, log_total: Tensor) -> None:
        self.maps, self.context, self.log_total = maps, context, log_total
        self._kept: dict[int, Tensor] = {}

    def __call__(self, class_id: int) -> Tensor:
        """[H, W] float32 in [0, 1]; 0 for a class without words."""
        if class_id not in self._kept:
            self._kept = self._make(class_id)
        return self._kept[class_id]

    def _make(self, first: int) -> dict[int, Tensor]:
        """Maps of a class and of as many behind it as there is room for."""
        words, size = self.context.words, self.context.size
        room = max(1, CLASS_MAPS_BYTES // (4 * size[0] * size[1]))
        queries: list[int] = []
        spans: dict[int, tuple[int, int]] = {}
        for class_id in range(first, len(words.classes)):
            own = words.of(class_id).nonzero()[:, 0].tolist()
            if queries and len(queries) + len(own) > room:
                break
            spans[class_id] = (len(queries), len(queries) + len(own))
            queries += own
        if not queries:
            return {c: torch.zeros(size, device=self.log_total.device) for c in spans}
        found = class_probabilities(self.maps, size, self.context.softmax_scale, self.log_total, queries)
        return {
            c: found[start:end].amax(dim=0).clamp_(max=1) if end > start else torch.zeros_like(found[0])
            for c, (start, end) in spans.items()
        }
