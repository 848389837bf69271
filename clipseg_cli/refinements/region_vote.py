"""Region vote: all pixels of a region take the label that most of them have (CorrCLIP's map correction).

Pixels in no region are left alone. In the published code the region with the smallest id is left alone, even where
every pixel lies in one; that is an accident of its numbers, and not repeated here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.ops.regions import nearest_ids, vote
from clipseg_cli.types import Refinement

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import Context


def relabel(labels: Tensor, confidence: Tensor, context: Context, value: bool) -> tuple[Tensor, Tensor]:
    """The labels after the vote; how sure they are is said at `ops.regions.vote`."""
    del value
    regions = nearest_ids(context.auxiliary["regions"][0], (labels.shape[0], labels.shape[1]))
    return vote(labels, confidence, regions)


REFINEMENT = Refinement(
    None,
    scope="labels",
    relabel=relabel,
    needs=("regions",),
    summary="pixels of a region take the label that most of them have",
    paper="arXiv:2411.10086",
    reference="zdk258/CorrCLIP@103bc18",
)
