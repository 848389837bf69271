"""What labelled images teach: a classifier of patches, and how far words are to be trusted beside it.

How sure the classifier may be, and how much the words count beside it, is found on images that were left out.

Letters: V views of an image (itself and its mirror image), h, w and n patches, F features, d directions, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from clipseg_cli.ops.discriminant import ABSENT, moments, total
from clipseg_cli.ops.levels import checkerboard
from clipseg_cli.ops.small_net import average_logits, directions, train_net, whitening
from clipseg_cli.ops.surroundings import with_surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.ops.discriminant import Moments
    from clipseg_cli.ops.levels import Packed
    from clipseg_cli.ops.small_net import Directions, SmallNet
    from clipseg_cli.types import Levels

SHARPNESSES = (1.0, 0.7, 0.5, 0.35, 0.25)
TRUSTS = (0.1, 0.3, 0.5, 1.0)
EARNED = 0.95
"""Of the loss without words: with words it must be less, or they do not count."""

ALONE = 0.5
"""Sharpness where there is one image, and none can be left out."""

TOLD, TRUST_TOLD, TRUST_UNTOLD = 0.5, 1.0, 0.3
"""Trust there: the first where the words alone find this share of what the image shows, the classes counting equally,
else the second."""

HELD_OUT = 4
"""One of so many images is left out."""

NETS = 2
"""Networks whose mean decides."""

CHECKED = 1024
"""Patches of an image that is left out."""

COUNTED = 1024
"""Patches of an image that directions are found from, and not many more."""

LABELLED = 0.2
"""Share of a patch that must have a label for it to be learnt from."""

FALSE_ALARMS = 0.01
"""Share of the labelled patches that a class which only words know would take, though it is not there."""


@dataclass(frozen=True)
class Labelled:
    """A labelled image.

    Attributes:
        levels: of its views.
        shares: [V, C, h, w] part of each patch that a class covers.
        words: [V, C, h, w] log probabilities by the words.
    """

    levels: Packed
    shares: Tensor
    words: Tensor

    @cached_property
    def kept(self) -> Tensor:
        """Bool [V, h, w], patches to learn from.

        Neighbours say nearly the same, and the mirror image something new: half of the patches of each view are kept.
        """
        grid = (self.shares.shape[2], self.shares.shape[3])
        odd = torch.stack([checkerboard(grid, number % 2) for number in range(len(self.shares))])
        return (self.shares.sum(dim=1) > LABELLED) & odd.to(self.shares.device)

    def rows(self, maps: Tensor) -> Tensor:
        """The patches to learn from, of maps [V, c, h, w]: [n, c]."""
        return maps.movedim(1, -1)[self.kept]

    def features(self) -> Tensor:
        """The levels of the patches to learn from: [n, F]."""
        return torch.cat([self.levels.view(v, kept).mT for v, kept in enumerate(self.kept)])


@dataclass(frozen=True)
class Taught:
    """What came out.

    Attributes:
        directions: of levels, in which the networks look at a patch.
        nets: whose mean decides.
        known: bool [C].
        trust, caution: see `types.Recall`.
        sharpness: factor on what the networks say.
        placed: the networks know where in the image a patch lies.
    """

    directions: Directions
    nets: tuple[SmallNet, ...]
    known: Tensor
    trust: float
    caution: Tensor
    sharpness: float
    placed: bool

    def read(self, levels: Levels) -> Tensor:
        """Levels -> directions [B, d, h, w]."""
        return levels.projected(self.directions.weight) - self.directions.offset[:, None, None]

    def judge(self, map_: Tensor) -> Tensor:
        """Directions [d, h, w] of an image -> logits [C, h, w]."""
        seen = with_surroundings(map_, self.directions.near, placed=self.placed)
        said = average_logits(self.nets, seen.flatten(1))  # [C, h*w]
        logits: Tensor = self.sharpness * said.unflatten(1, map_.shape[1:])
        return logits


def learn(images: Sequence[Labelled], *, placed: bool = True) -> Taught:
    """The classifier of some labelled images; at least one of them shows a class.

    Args:
        images: whole ones.
        placed: it will be asked about whole images too, so that it may know where in them a patch lies.
    """
    every = min(HELD_OUT, len(images))
    held, rest = list(images[every - 1 :: every]), [one for i, one in enumerate(images) if (i + 1) % every]
    of_held, of_rest = _moments(held), _moments(rest) if rest else None
    everything = of_held if of_rest is None else of_rest + of_held
    whitened = whitening(everything)
    if of_rest is not None and of_rest.mass.any():
        sharpness, trust = _chosen(rest, held, directions(of_rest, whitened), of_rest.mass > 0, placed=placed)
    else:
        sharpness, trust = ALONE, TRUST_TOLD if _told(images) > TOLD else TRUST_UNTOLD
    ways, known = directions(everything, whitened), everything.mass > 0
    nets = _trained(images, ways, NETS, placed=placed)
    return Taught(ways, nets, known, trust, _caution(images, known), sharpness, placed)


def _moments(images: Sequence[Labelled]) -> Moments:
    """The moments of the patches of some images, one image after the other; of large ones not every patch."""

    def own(image: Labelled) -> Moments:
        x, shares = image.features(), image.rows(image.shares)
        step = max(1, len(x) // COUNTED)
        return moments(x[::step], shares[::step])

    return total(own(image) for image in images)


def _seen(image: Labelled, ways: Directions, *, placed: bool) -> Tensor:
    """What networks see of the patches to learn from: [n, d + ...]."""
    views = [ways(image.levels.view(v).movedim(0, -1)).movedim(-1, 0) for v in range(len(image.shares))]
    return image.rows(torch.stack([with_surroundings(one, ways.near, placed=placed) for one in views]))


def _trained(
    images: Sequence[Labelled], ways: Directions, count: int, *, placed: bool
) -> tuple[SmallNet, ...]:
    """Some networks on all that the images show."""
    x = torch.cat([_seen(one, ways, placed=placed) for one in images])
    shares = torch.cat([one.rows(one.shares) for one in images])
    return tuple(train_net(x, shares, seed=seed) for seed in range(count))


def _chosen(
    rest: Sequence[Labelled], held: Sequence[Labelled], ways: Directions, known: Tensor, *, placed: bool
) -> tuple[float, float]:
    """The sharpness and trust that predict images that were left out best, rare classes counting more.

    Args:
        rest: that a network learns from.
        held: that it has to predict.
        ways: directions, by the labels of `rest`.
        known: bool [C] classes that `rest` shows.
        placed: as for `learn`.
    """
    nets = _trained(rest, ways, 1, placed=placed)
    checked = (_checked(one, _seen(one, ways, placed=placed)) for one in held)
    x, shares, words = (torch.cat(part) for part in zip(*checked, strict=True))
    shares = shares * known
    weight = shares * (shares.sum(dim=0).clamp(min=1e-6) / shares.sum().clamp(min=1e-6)).rsqrt()
    logits = average_logits(nets, x.mT).mT

    def loss(sharpness: float, trust: float) -> float:
        both = (sharpness * logits + trust * words).masked_fill(~known, ABSENT)
        return -float((both.log_softmax(dim=1) * weight).sum())

    alone = min(SHARPNESSES, key=lambda sharpness: loss(sharpness, 0.0))
    both = min(((s, t) for s in SHARPNESSES for t in TRUSTS), key=lambda pair: loss(*pair))
    # Few images are left out: words that help by chance would do harm on all others.
    return both if loss(*both) < EARNED * loss(alone, 0.0) else (alone, 0.0)


def _told(images: Sequence[Labelled]) -> float:
    """Mean recall of the classes that some images show, by the words alone, from 0 to 1."""
    shares = torch.cat([one.rows(one.shares) for one in images])  # [n, C]
    said = torch.cat([one.rows(one.words) for one in images]).argmax(dim=1)
    found = shares.gather(1, said[:, None])[:, 0]
    right = torch.zeros(shares.shape[1], device=shares.device).index_add_(0, said, found)
    mass = shares.sum(dim=0)
    return float((right / mass.clamp(min=1e-6))[mass > 0].mean())


def _checked(image: Labelled, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Some patches of an image that was left out: what is seen of them, their shares, and the words."""
    step = max(1, len(seen) // CHECKED)
    return seen[::step], image.rows(image.shares)[::step], image.rows(image.words)[::step]


def _caution(images: Sequence[Labelled], known: Tensor) -> Tensor:
    """[C] how much more probable than all known classes together the words find a class that is not there."""
    words = torch.cat(
        [image.rows(image.words)[image.rows(image.shares).sum(dim=1) > 0.5] for image in images]
    )
    if known.all() or not len(words):
        return torch.zeros(known.shape, device=known.device)
    odds = words - words[:, known].logsumexp(dim=1, keepdim=True)
    worst = odds.topk(max(1, round(FALSE_ALARMS * len(odds))), dim=0).values[-1]
    return torch.where(known, 0.0, worst.clamp(min=0))
