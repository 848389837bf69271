"""What refinements share that note evidence of each class in each window, and then drop classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.ops.similarity import remove_classes

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import Context, LogitMaps


def absent_by(evidence: Tensor, keep: int | None = None) -> Tensor:
    """Which classes no window speaks for.

    Args:
        evidence: [P, C] of all windows of one image; or [B, P, C] of several.
        keep: id of a class that always stays (the background), or None.

    Returns:
        [C] or [B, C] bool, True where the class is to be removed; the class with the most evidence always stays.
    """
    best = evidence.amax(dim=-2)  # [..., C]
    absent = (best < 1).scatter(-1, best.argmax(dim=-1, keepdim=True), False)
    if keep is not None:
        absent[..., keep] = False
    return absent


def without_absent(maps: LogitMaps, context: Context, name: str) -> LogitMaps:
    """The maps without the classes that no window of the image speaks for, by what that refinement observed."""
    classes = context.words.classes
    absent = absent_by(context.observed[name], classes.background)
    return maps.each(lambda one: remove_classes(one, absent, classes.query_to_class))
