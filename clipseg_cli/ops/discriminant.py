"""Linear discriminant analysis with shrinkage: a classifier of patches in closed form, from few labelled images.

All classes share one covariance, estimated inside the classes and shrunk towards its diagonal, so that three images
suffice for a thousand features. Nothing is drawn at random: equal data give equal classifiers.

Letters: n patches, F features, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

LEAST = 1e-4
"""Added to every variance."""

ABSENT = -1e4
"""Bias of a class without a patch: it never wins."""


class Moments(NamedTuple):
    """Sums over labelled patches; those of several images are added.

    Attributes:
        mass: [C] patches of each class, in shares.
        sums: [C, F].
        scatter: [F, F] sum of x x^T.
    """

    mass: Tensor
    sums: Tensor
    scatter: Tensor

    def __add__(self, other: Moments) -> Moments:  # type: ignore[override]
        return Moments(self.mass + other.mass, self.sums + other.sums, self.scatter + other.scatter)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.mass - other.mass, self.sums - other.sums, self.scatter - other.scatter)


def moments(x: Tensor, shares: Tensor) -> Moments:
    """Of the patches of one image.

    Args:
        x: [n, F].
        shares: [n, C] part of each patch that a class covers; a patch counts as much as is labelled of it.
    """
    x, shares = x.float(), shares.float()
    weighted = x * shares.sum(dim=1, keepdim=True)
    return Moments(shares.sum(dim=0), shares.mT @ x, weighted.mT @ x)


def total(parts: Iterable[Moments]) -> Moments:
    """The sum of some; at least one."""
    parts = iter(parts)
    found = next(parts)
    for part in parts:
        found = found + part
    return found


class Linear(NamedTuple):
    """A linear classifier: weight [C, F] and bias [C]."""

    weight: Tensor
    bias: Tensor


def discriminant(known: Moments, shrinkage: float, balance: float = 0.5) -> Linear:
    """The classifier whose softmax is the probability of each class.

    Args:
        known: of all images.
        shrinkage: from 0, the covariance as it was found, to 1, its diagonal alone.
        balance: 0 takes classes as frequent as they were, 1 all as equally frequent.

    Returns:
        float32; a class without patches never wins.
    """
    count, sums, scatter = (one.double() for one in known)
    there = count > 0
    mean = sums / count.clamp(min=1e-9)[:, None]  # [C, F]
    within = (scatter - (mean * count[:, None]).mT @ mean) / count.sum()
    spread = within.diagonal() + LEAST
    shrunk = (1 - shrinkage) * within
    shrunk.diagonal().copy_((1 - shrinkage) * within.diagonal() + shrinkage * spread + LEAST)
    weight = torch.linalg.solve(shrunk, mean.mT).mT
    prior = (1 - balance) * (count.clamp(min=1e-9) / count.sum()).log()
    bias = torch.where(there, prior - (weight * mean).sum(dim=1) / 2, ABSENT)
    return Linear((weight * there[:, None]).float(), bias.float())
