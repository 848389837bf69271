"""What labelled images teach: a classifier of patches, and how far words are to be trusted beside it.

Everything that is not counted is found on images that were left out: how much the covariance is shrunk, how sure the
classifier may be, and the weight of the words. Letters: n patches, F features, C classes, Q words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.discriminant import ABSENT, Moments, discriminant, moments, total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.ops.discriminant import Linear

SHRINKAGES = (0.01, 0.03, 0.1, 0.3)
SHARPNESSES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15)
TRUSTS = (0.0, 0.1, 0.3, 1.0)
FOLDS = 4
ALONE = (0.2, 0.5, 0.3)
"""Shrinkage, sharpness and trust where there is one image, and none can be left out."""

CHECKED = 1024
"""Patches of an image that is left out."""

FALSE_ALARMS = 0.01
"""Share of the labelled patches that a class which only words know would take, though it is not there."""


@dataclass(frozen=True)
class Labelled:
    """A labelled image.

    Attributes:
        levels: [n, F].
        shares: [n, C] part of each patch that a class covers.
        words: [n, C] log probabilities by the words.
    """

    levels: Tensor
    shares: Tensor
    words: Tensor


@dataclass(frozen=True)
class Taught:
    """What came out.

    Attributes:
        linear: classifier of levels; its logits are as sure as they may be.
        known: bool [C].
        trust, caution: see `types.Recall`.
        shrinkage, sharpness: that were chosen.
    """

    linear: Linear
    known: Tensor
    trust: float
    caution: Tensor
    shrinkage: float
    sharpness: float


def learn(images: Sequence[Labelled]) -> Taught:
    """The classifier of some labelled images; at least one of them shows a class."""
    parts = [moments(one.levels, one.shares) for one in images]
    everything = total(parts)
    known = everything.count > 0
    shrinkage, sharpness, trust = _chosen(images, parts, everything) if len(images) > 1 else ALONE
    found = discriminant(everything, shrinkage)
    linear = found._replace(
        weight=sharpness * found.weight,
        bias=torch.where(known, sharpness * found.bias, ABSENT),
    )
    return Taught(linear, known, trust, _caution(images, known), shrinkage, sharpness)


def _chosen(
    images: Sequence[Labelled], parts: Sequence[Moments], everything: Moments
) -> tuple[float, float, float]:
    """Shrinkage, sharpness and trust that say most of images that were left out, rare classes counting more."""
    folds = min(FOLDS, len(images))
    losses = torch.zeros(len(SHRINKAGES), len(SHARPNESSES), len(TRUSTS), dtype=torch.double)
    for fold in range(folds):
        held = [_checked(one) for one in images[fold::folds]]
        rest = everything - total(parts[fold::folds])
        there = rest.count > 0.5  # what is left after a subtraction is never quite 0
        rest = Moments(torch.where(there, rest.count, 0.0), rest.sums, rest.scatter)
        x, shares, words = (torch.cat(part) for part in zip(*held, strict=True))
        shares = shares * there
        weight = shares * (shares.sum(dim=0).clamp(min=1e-6) / shares.sum().clamp(min=1e-6)).rsqrt()
        for i, shrinkage in enumerate(SHRINKAGES):
            linear = discriminant(rest, shrinkage)
            logits = x @ linear.weight.mT + linear.bias
            for j, sharpness in enumerate(SHARPNESSES):
                for k, trust in enumerate(TRUSTS):
                    both = (sharpness * logits + trust * words).masked_fill(~there, ABSENT)
                    losses[i, j, k] -= (both.log_softmax(dim=1) * weight).sum().double()
    i, j, k = (int(n) for n in torch.unravel_index(losses.argmin(), losses.shape))
    return SHRINKAGES[i], SHARPNESSES[j], TRUSTS[k]


def _checked(image: Labelled) -> tuple[Tensor, Tensor, Tensor]:
    step = max(1, len(image.levels) // CHECKED)
    return image.levels[::step].float(), image.shares[::step], image.words[::step]


def _caution(images: Sequence[Labelled], known: Tensor) -> Tensor:
    """[C] how much more probable than all known classes together the words find a class that is not there."""
    words = torch.cat([one.words[one.shares.sum(dim=1) > 0.5] for one in images])
    if known.all() or not len(words):
        return torch.zeros(known.shape, device=known.device)
    odds = words - words[:, known].logsumexp(dim=1, keepdim=True)
    worst = odds.topk(max(1, round(FALSE_ALARMS * len(odds))), dim=0).values[-1]
    return torch.where(known, 0.0, worst.clamp(min=0))
