"""What is learnt: patches and regions in several readings, and what a whole image shows, against the step's texts.

Letters: B images, N patches, K instances, D embedding, T texts, C concepts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.emoji.net import TinyClip, normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recipes.emoji.loader import Batch
    from recipes.emoji.words import TextSampler

THING_WEIGHT = 3.0
REGION_WEIGHT = 0.8
SCENE_WEIGHT, CROP_WEIGHT = 0.3, 1.0
"""Of what the class token says of a scene, and of a crop as CLIP-DIY cuts it."""

CENTRE = 0.3
"""The class token names what is near the middle: the width of a Gaussian, in sides of the image."""

READINGS = (
    (("maskclip", "vanilla", "sclip"), (0.45, 0.35, 0.2)),
    (("clearclip", "naclip"), (0.5, 0.5)),
)
"""Each step reads the last block by one method of each group, drawn with these probabilities: with residual and MLP,
and without."""

DEEPER = {"small": (("sc_clip", "gem", ""), (0.35, 0.12, 0.53)), "large": (("sc_clip", ""), (0.75, 0.25))}
"""Methods that reach into earlier blocks, of which a step reads by one at most. SC-CLIP compares all patches of a
image, so that it has to learn on as many as it will see; GEM attends six times as often as others, and learns on
small images."""

SMALL = 160
"""Pixels a side up to which an image is small."""


@dataclass
class Losses:
    """The total to minimise, and its parts as plain numbers."""

    total: Tensor
    patch: float
    region: float
    pooled: float


def draw_readings(rng: np.random.Generator, side: int) -> tuple[str, ...]:
    """The methods by which a step reads images of `side` pixels."""
    groups = (*READINGS, DEEPER["small" if side <= SMALL else "large"])
    drawn = (str(rng.choice(names, p=shares)) for names, shares in groups)
    return tuple(name for name in drawn if name)


def scale_at(progress: float) -> float:
    """The logit scale: soft at first, 100 (as at inference) from half of the run on."""
    return float(np.exp(np.interp(progress, [0.0, 0.5], [np.log(16.0), np.log(100.0)])))


def window(model_grid: int, grid: int, rng: np.random.Generator) -> tuple[int, int]:
    """A random window of the position grid."""
    y, x = rng.integers(0, model_grid - grid + 1, 2)
    return int(y), int(x)


def central(grid: int) -> Tensor:
    """[N] how much each patch of a square grid counts for the class token; the mean is 1."""
    place = (torch.arange(grid) + 0.5) / grid - 0.5
    line = torch.exp(-0.5 * (place / CENTRE) ** 2)
    weight = torch.outer(line, line).flatten()
    return weight / weight.mean()


def compute(
    model: TinyClip,
    texts: TextSampler,
    batch: Batch,
    related: NDArray[np.bool_],
    offset: tuple[int, int],
    scale: float,
    methods: tuple[str, ...] = ("maskclip",),
) -> Losses:
    """One forward pass and the weighted sum of the terms."""
    device = model.tokens.device
    candidates = texts.candidates(batch.labels)
    text = normalise(model.encode_text(texts.tokens(candidates).to(device)))  # [T, D]
    pixels = torch.from_numpy(batch.images).to(device).permute(0, 3, 1, 2)
    readings, pooled = model.readings(pixels, methods, offset)
    column = np.zeros(len(related), np.int64)
    column[candidates] = np.arange(len(candidates))
    position = torch.from_numpy(column).to(device)
    blocked = torch.from_numpy(related[:, candidates]).to(device)  # [C, T]

    def entropy(features: Tensor, labels: Tensor) -> Tensor:
        target = position[labels]
        mask = blocked[labels].scatter(1, target[:, None], False)
        logits = scale * features @ text.T
        return F.cross_entropy(logits.masked_fill(mask, float("-inf")), target, reduction="none")

    labels = torch.from_numpy(batch.patch_labels).to(device).flatten()
    weights = torch.from_numpy(np.where(batch.is_thing, THING_WEIGHT, 1.0) * batch.patch_weights).to(device)
    weights = weights.float().flatten()
    cover = torch.from_numpy(batch.cover).to(device)  # [B, K, N]
    area = cover.sum(-1)
    instances = torch.from_numpy(batch.labels).to(device)  # [B, K]
    scene, slot = torch.nonzero((area > 1.5) & (instances >= 0), as_tuple=True)
    named = instances[scene, slot]
    shares = cover / area.clamp(min=1e-3)[..., None]

    patch, region = pixels.new_zeros((), dtype=torch.float32), pixels.new_zeros((), dtype=torch.float32)
    for features in readings.values():
        dense = normalise(features)  # [B, N, D]
        patch = patch + (entropy(dense.flatten(0, 1), labels) * weights).sum() / weights.sum()
        region = region + entropy(normalise((shares @ dense)[scene, slot]), named).mean()
    patch, region = patch / len(readings), region / len(readings)

    # Everything shown is right for the whole image, by its size and nearness to the middle.
    counts = (cover * central(round(cover.shape[-1] ** 0.5)).to(device)).sum(-1)
    counts = counts * torch.from_numpy(np.where(batch.thing_instances, THING_WEIGHT, 1.0)).to(device)
    counts = torch.where(instances >= 0, counts, 0.0).float()
    target = torch.zeros(len(pixels), len(candidates), device=device)
    target.scatter_add_(1, position[instances.clamp(min=0)], counts / counts.sum(-1, keepdim=True))
    rivals = (blocked[instances.clamp(min=0)] & (instances >= 0)[..., None]).any(1) & (target == 0)
    logits = (scale * normalise(pooled) @ text.T).masked_fill(rivals, -1e4)
    whole = F.cross_entropy(logits, target)

    total = patch + REGION_WEIGHT * region + (CROP_WEIGHT if batch.crops else SCENE_WEIGHT) * whole
    return Losses(total, float(patch.detach()), float(region.detach()), float(whole.detach()))
