"""From the logits of an image to one class a pixel, with the probability that it won by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from clipseg_cli.ops.logits import class_probabilities, reduce_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import Context, LogitMaps, Words

CLASS_MAPS_BYTES = 256 << 20
"""Full-size maps of single classes that are made, and refined, at once; at least one is, however large."""

BAND = 1 << 20
"""Pixels of an image that are decided at once."""


class Decision(NamedTuple):
    """What came out for an image, or for several of one size with [B] in front of each shape.

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
    reduced = reduce_logits(maps, context.size, context.softmax_scale, totals=totals)
    winner, confidence = reduced.winner, reduced.score
    height, width = context.size
    if height * width <= BAND:
        labels = _labels(winner, confidence, context.words, background_threshold)
        return Decision(labels, confidence, reduced.log_total)
    labels = torch.empty(winner.shape, dtype=context.words.class_of.dtype, device=winner.device)
    rows = max(1, BAND // width)
    # An index takes eight bytes a pixel while it is looked up, and a threshold several maps: never of a large image.
    for band in (slice(top, top + rows) for top in range(0, height, rows)):
        own, sure = winner[..., band, :], confidence[..., band, :]
        labels[..., band, :] = _labels(own, sure, context.words, background_threshold)
    return Decision(labels, confidence, reduced.log_total)


def _labels(winner: Tensor, confidence: Tensor, words: Words, background_threshold: float) -> Tensor:
    """Class ids of winning words; too improbable ones become background, whose confidence is written in place."""
    labels, background = words.class_of[winner.long()], words.classes.background
    if background_threshold > 0 and background is not None:
        unsure = (confidence < background_threshold) & (labels != background)
        labels = labels.masked_fill(unsure, background)
        confidence.copy_(torch.where(unsure, 1 - confidence, confidence))
    return labels


class ClassMaps:
    """Probability maps of single classes, as they were when the pixels were decided, each by itself.

    Several are made at once, so that steps at full size run once for all words and not once for each class.

    Args:
        maps: of one image, as `decide` had them.
        context: as `decide` had it.
        log_total: of its decision.
    """

    def __init__(self, maps: LogitMaps, context: Context, log_total: Tensor) -> None:
        self.maps, self.context, self.log_total = maps, context, log_total
        self._kept: dict[int, Tensor] = {}

    @classmethod
    def of(cls, maps: LogitMaps, context: Context, totals: Sequence[Tensor]) -> list[ClassMaps]:
        """The class maps of each of several images, one for each of `totals`."""
        each = [maps.of_image(i) for i in range(len(totals))] if len(totals) > 1 else [maps]
        return [cls(one, context, total) for one, total in zip(each, totals, strict=True)]

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
