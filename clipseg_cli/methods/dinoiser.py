"""CLIP-DINOiser: MaskCLIP's features, gathered by the correlations of another network (arXiv:2312.12359).

Two ways to say which patches belong together: the values of a self-supervised ViT (training-free), or the authors'
head, which predicts them from an inner layer of CLIP itself.

Reference: wysoczanska/clip_dinoiser@a954aae, models/clip_dinoiser/clip_dinoiser.py and models/maskclip/maskclip.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.methods import maskclip
from clipseg_cli.ops.correlation import correlations, pool_by_correlation
from clipseg_cli.types import Method

if TYPE_CHECKING:
    from torch import Tensor


def pool(features: Tensor, guide: Tensor, *, gamma: float = 0.2) -> Tensor:
    """Every patch becomes the mean of those that the guide finds alike.

    Args:
        features: [B, D, h, w] in the space of the words.
        guide: [B, Dg, hg, wg] of the other network.
        gamma: cosines below it count nothing.

    Returns:
        [B, D, hg, wg].
    """
    return pool_by_correlation(features, correlations(guide, gamma), (guide.shape[2], guide.shape[3]))


METHOD = Method(
    maskclip.attention,
    pool=pool,
    guided=True,
    guide_reads="values",
    positions="shape",
    padding="black",
    pointwise=True,
    ranges={"gamma": (-1, 1)},
    cost=5.1,
    summary="MaskCLIP, gathered by the correlations of a self-supervised network or of the authors' head",
    paper="arXiv:2312.12359",
    reference="wysoczanska/clip_dinoiser@a954aae",
)
