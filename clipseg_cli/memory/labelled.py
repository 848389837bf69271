"""What labelled images teach: a classifier of patches, and how far words are to be trusted beside it.

How sure the classifier may be, and how much the words count beside it, is found on images that were left out.

Letters: n patches, F features, C classes, Q words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.discriminant import ABSENT, moments, total
from clipseg_cli.ops.small_net import average_logits, directions, train_net

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.ops.discriminant import Moments
    from clipseg_cli.ops.small_net import Directions, SmallNet

SHARPNESSES = (1.0, 0.7, 0.5, 0.35, 0.25)
TRUSTS = (0.1, 0.3, 0.5, 1.0)
EARNED = 0.95
"""Of the loss without words: with words it must be less, or they do not count."""

ALONE = (0.5, 0.3)
"""Sharpness and trust where there is one image, and none can be left out."""

HELD_OUT = 4
"""One of so many images is left out."""

NETS = 2
"""Networks whose mean decides."""

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
        directions: of levels, in which the networks look at a patch.
        nets: whose mean decides.
        known: bool [C].
        trust, caution: see `types.Recall`.
        sharpness: factor on what the networks say.
    """

    directions: Directions
    nets: tuple[SmallNet, ...]
    known: Tensor
    trust: float
    caution: Tensor
    sharpness: float

    def read(self, levels: Tensor) -> Tensor:
        """Levels [B, F, h, w] -> directions [B, d, h, w]."""
        return self.directions(levels.float().movedim(1, -1)).movedim(-1, 1)

    def judge(self, map_: Tensor) -> Tensor:
        """Directions [d, h, w] -> logits [C, h, w]."""
        return self.sharpness * average_logits(self.nets, map_.movedim(0, -1)).movedim(-1, 0)


def learn(images: Sequence[Labelled]) -> Taught:
    """The classifier of some labelled images; at least one of them shows a class."""
    every = min(HELD_OUT, len(images))
    held, rest = list(images[every - 1 :: every]), [one for i, one in enumerate(images) if (i + 1) % every]
    known_rest = _moments(rest) if rest else None
    sharpness, trust = ALONE
    if known_rest is not None and known_rest.mass.any():
        sharpness, trust = _chosen(rest, held, known_rest)
    everything = _moments(held) if known_rest is None else known_rest + _moments(held)
    ways, nets, known = _trained(images, everything, NETS)
    return Taught(ways, nets, known, trust, _caution(images, known), sharpness)


def _moments(images: Sequence[Labelled]) -> Moments:
    """Of some images, one after the other."""
    return total(moments(one.levels, one.shares) for one in images)


def _trained(
    images: Sequence[Labelled], everything: Moments, count: int
) -> tuple[Directions, tuple[SmallNet, ...], Tensor]:
    """Directions, networks, and which classes they know."""
    ways = directions(everything)
    x = torch.cat([ways(one.levels.float()) for one in images])
    shares = torch.cat([one.shares for one in images])
    nets = tuple(train_net(x, shares, seed=seed) for seed in range(count))
    return ways, nets, everything.mass > 0


def _chosen(rest: Sequence[Labelled], held: Sequence[Labelled], everything: Moments) -> tuple[float, float]:
    """Sharpness and trust that say most of images that were left out, rare classes counting more.

    Args:
        rest: that a network learns from.
        held: that it has to say.
        everything: moments of `rest`.
    """
    x, shares, words = (torch.cat(part) for part in zip(*(_checked(one) for one in held), strict=True))
    ways, nets, known = _trained(rest, everything, 1)
    shares = shares * known
    weight = shares * (shares.sum(dim=0).clamp(min=1e-6) / shares.sum().clamp(min=1e-6)).rsqrt()
    logits = average_logits(nets, ways(x))

    def loss(sharpness: float, trust: float) -> float:
        both = (sharpness * logits + trust * words).masked_fill(~known, ABSENT)
        return -float((both.log_softmax(dim=1) * weight).sum())

    alone = min(SHARPNESSES, key=lambda sharpness: loss(sharpness, 0.0))
    both = min(((s, t) for s in SHARPNESSES for t in TRUSTS), key=lambda pair: loss(*pair))
    # Few images are left out: words that help by chance would do harm on all others.
    return both if loss(*both) < EARNED * loss(alone, 0.0) else (alone, 0.0)


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
