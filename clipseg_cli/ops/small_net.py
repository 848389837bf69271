"""A classifier with one hidden layer, on few directions of many features: for patches of a few labelled images.

What the classes differ in, and what patches vary in most, are a hundred directions of a thousand; in those a small
network learns in seconds. Equal data, seed and number of threads give an equal network.

Letters: n patches, F features, d directions, K hidden units, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from clipseg_cli.ops.discriminant import ABSENT, LEAST, discriminant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.ops.discriminant import Moments

DIRECTIONS = 96
"""Of most variance, beside one for each class."""

NEAR = 16
"""Of these, how many are telling enough to be averaged over what is around a patch, beside all of the classes."""

SEPARATION = 2.0
"""Spread of the directions in which classes differ, where those of most variance have 1."""

SHRINKAGE = 0.2


class Directions(NamedTuple):
    """An affine map [n, F] -> [n, d]: x @ weight - offset; the first `near` of the d say most."""

    weight: Tensor
    offset: Tensor
    near: int

    def __call__(self, x: Tensor) -> Tensor:
        """[..., F] -> [..., d]."""
        return x @ self.weight - self.offset


class SmallNet(NamedTuple):
    """Hidden layer [K, d] and output [C, K], each with its bias."""

    hidden: Tensor
    hidden_bias: Tensor
    output: Tensor
    output_bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Directions [d, n] -> logits [C, n]; patches stand last, as in maps, since a dozen classes fill no vector."""
        units = F.gelu(torch.addmm(self.hidden_bias[:, None], self.hidden, x))
        return torch.addmm(self.output_bias[:, None], self.output, units)


def whitening(known: Moments, most: int = DIRECTIONS) -> Tensor:
    """The principal components, scaled to variance 1, those of most variance first: [F, most], or all there are.

    Args:
        known: moments of all patches.
        most: how many, as far as there are features.
    """
    values, vectors = torch.linalg.eigh(_covariance(known)[1].float())  # the largest are exact enough
    most = min(most, len(values))
    found: Tensor = (vectors[:, -most:] / values[-most:].clamp(min=LEAST).sqrt()).flip(1).double()
    return found


def directions(known: Moments, whitened: Tensor) -> Directions:
    """What the classes differ in, and behind it the directions of most variance.

    Args:
        known: moments of patches of labelled images, classes that are absent included.
        whitened: by `whitening`, of these images or of more: labels do not matter to it.
    """
    mean, covariance = _covariance(known)
    apart = discriminant(known, SHRINKAGE).weight.double()[known.mass > 0]
    apart = apart - apart.mean(dim=0)
    spread = (apart @ covariance @ apart.mT).diagonal().clamp(min=1e-12).sqrt()
    weight = torch.cat([SEPARATION * (apart / spread[:, None]).mT, whitened], dim=1)
    return Directions(weight.float(), (mean @ weight).float(), min(len(apart) + NEAR, weight.shape[1]))


def _covariance(known: Moments) -> tuple[Tensor, Tensor]:
    """Mean [F] and covariance [F, F] of all patches, in double precision."""
    count, sums, scatter = (one.double() for one in known)
    mean = sums.sum(dim=0) / count.sum()
    covariance = scatter / count.sum() - torch.outer(mean, mean)
    covariance.diagonal().add_(LEAST)
    return mean, covariance


def train_net(
    x: Tensor,
    shares: Tensor,
    *,
    hidden: int = 128,
    steps: int = 300,
    batch: int = 2048,
    lr: float = 3e-3,
    weight_decay: float = 0.05,
    dropout: tuple[float, float] = (0.1, 0.3),
    balance: float = 0.5,
    seed: int = 0,
) -> SmallNet:
    """A network that says the class of patches.

    Args:
        x: [n, d] directions of labelled patches.
        shares: [n, C] part of each patch that a class covers.
        hidden: units.
        steps, batch, lr, weight_decay: of AdamW, with one cycle of the rate.
        dropout: of directions, and of hidden units.
        balance: 0 counts classes as often as they are, 1 all equally.
        seed: of weights, batches and dropout; the random state of the process stays as it is.

    Returns:
        float32, on the device of `x`; a class without patches never wins.
    """
    mass = shares.sum(dim=0)
    weight = torch.where(mass > 0, (mass / mass.sum()).clamp(min=1e-5) ** -balance, 0.0)
    weight = weight * mass.sum() / (weight * mass).sum()
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.inference_mode(mode=False), torch.enable_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        x, shares, weight = x.clone(), shares.clone(), weight.clone()
        first, last = nn.Linear(x.shape[1], hidden), nn.Linear(hidden, shares.shape[1])
        first, last = first.to(x.device), last.to(x.device)
        parameters = [*first.parameters(), *last.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
        for _ in range(steps):
            # Drawn on the CPU, so that it is the same on every device.
            drawn = torch.randint(len(x), (min(batch, len(x)),)).to(x.device)
            units = F.gelu(first(_dropped(x[drawn], dropout[0])))
            said = last(_dropped(units, dropout[1])).log_softmax(dim=1)
            loss = -(said * shares[drawn] * weight).sum(dim=1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        bias = torch.where(mass > 0, last.bias.detach(), ABSENT)
        return SmallNet(first.weight.detach(), first.bias.detach(), last.weight.detach(), bias)


def _dropped(x: Tensor, share: float) -> Tensor:
    """Dropout, of a share that is a multiple of 1/256: eight masks are drawn at once, since drawing takes the time."""
    least = round(256 * share)
    drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(1 << 63), None)
    kept = drawn.view(torch.uint8)[: x.numel()].view(x.shape) >= least
    return x * (kept.to(x) * (256 / (256 - least)))


def average_logits(nets: Sequence[SmallNet], x: Tensor) -> Tensor:
    """Mean log probabilities [C, n] of several networks at directions [d, n]."""
    found = [net(x).log_softmax(dim=0) for net in nets]
    return torch.stack(found).mean(dim=0)
