"""From the scores of words to one class a pixel, with the probability that it won by."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from clipseg_cli.config import ignore_value
from clipseg_cli.ops.reduce import probability_maps, reduce_layers
from clipseg_cli.ops.refine import small_classes

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.inference.logit_maps import ScoreMaps
    from clipseg_cli.inference.settings import Settings
    from clipseg_cli.ops.reduce import Reduced, TileChange
    from clipseg_cli.types import ClassList


class Decider:
    """The rules by which a class wins a pixel.

    Args:
        settings: scale of the softmax and thresholds.
        classes: what the labels mean.
        device: where scores are.
    """

    def __init__(self, settings: Settings, classes: ClassList, device: torch.device) -> None:
        self.settings, self.classes = settings, classes
        # The type of the label map itself, so that a 12-megapixel map is never held as int64.
        narrow = ignore_value(len(classes)) < 256
        self._class_of = torch.tensor(
            classes.query_to_class, device=device, dtype=torch.uint8 if narrow else torch.int32
        )

    def __call__(
        self, maps: ScoreMaps, size: tuple[int, int], change: TileChange | None = None
    ) -> tuple[Tensor, Tensor, Reduced]:
        """One label a pixel from refined scores, with the words they were decided by.

        Args:
            maps: of the picture.
            size: (H, W) of the labels.
            change: what happens to the scores at full size first.

        Returns:
            labels [H, W] class ids, scores [H, W] float32 in [0, 1], and what class maps can be made from.
        """
        s, classes = self.settings, self.classes
        # Smoothed maps are probabilities already; the published code still compares them as they are.
        reduce = partial(
            reduce_layers, self._scaled(maps).at(size), probabilities=s.key_smoothing > 0, change=change
        )
        reduced = reduce()
        labels = self._class_of[reduced.winner]
        if s.area_threshold > 0 and classes.background is not None:
            small = small_classes(labels, len(classes), s.area_threshold, classes.background)
            reduced = reduce(excluded=small[self._class_of.long()])
            labels = self._class_of[reduced.winner]
        scores = reduced.score
        if s.background_threshold > 0 and classes.background is not None:
            unsure = (scores < s.background_threshold) & (labels != classes.background)
            labels = labels.masked_fill(unsure, classes.background)
            scores = torch.where(unsure, 1 - scores, scores)
        return labels, scores, reduced

    def class_map(
        self, maps: ScoreMaps, reduced: Reduced, class_id: int, change: TileChange | None = None
    ) -> Tensor:
        """Probability [H, W] of one class, of the decision that gave `reduced`; 0 for a class without words."""
        size = (reduced.winner.shape[0], reduced.winner.shape[1])
        words = self.words_of(class_id).nonzero()[:, 0].tolist()
        if not words:
            return torch.zeros(size, device=reduced.score.device)
        found = probability_maps(
            self._scaled(maps).at(size),
            reduced.log_total,
            words,
            probabilities=self.settings.key_smoothing > 0,
            change=change,
        )
        return found.amax(dim=0).clamp_(max=1)

    def words_of(self, class_id: int) -> Tensor:
        """Bool [Q]: the words of a class."""
        return torch.eq(self._class_of, class_id)

    def _scaled(self, maps: ScoreMaps) -> ScoreMaps:
        s = self.settings
        return maps if s.key_smoothing > 0 else maps.each(lambda one: one * s.softmax_scale)
