"""What is learnt: patches, regions and whole pictures, each against the step's texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.net import TinyClip, normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.loader import Batch
    from training.words import TextSampler

THING_WEIGHT = 3.0
REGION_WEIGHT = 0.8
GLOBAL_WEIGHT = 0.1


@dataclass
class Losses:
    """The total to minimise, and its parts as plain numbers."""

    total: Tensor
    patch: float
    region: float
    pooled: float


def scale_at(progress: float) -> float:
    """The logit scale: soft at first, 100 (as at inference) from half of the run on."""
    return float(np.exp(np.interp(progress, [0.0, 0.5], [np.log(16.0), np.log(100.0)])))


def window(model_grid: int, grid: int, rng: np.random.Generator) -> tuple[int, int]:
    """A random window of the position grid."""
    y, x = rng.integers(0, model_grid - grid + 1, 2)
    return int(y), int(x)


def compute(
    model: TinyClip,
    texts: TextSampler,
    batch: Batch,
    related: NDArray[np.bool_],
    offset: tuple[int, int],
    scale: float,
) -> Losses:
    """One forward pass and the weighted sum of the three terms."""
    device = model.tokens.device
    candidates = texts.candidates(batch.labels)
    text = normalise(model.encode_text(texts.tokens(candidates).to(device)))  # [T, D]
    dense, pooled = model.encode_image(torch.from_numpy(batch.images).to(device).permute(0, 3, 1, 2), offset)
    dense = normalise(dense)  # [B, N, D]
    column = np.zeros(len(related), np.int64)
    column[candidates] = np.arange(len(candidates))
    blocked = torch.from_numpy(related[:, candidates]).to(device)  # [C, T]

    def entropy(features: Tensor, labels: Tensor, extra: Tensor | None = None) -> Tensor:
        logits = scale * features @ text.T
        mask = blocked[labels] if extra is None else blocked[labels] | extra
        target = torch.from_numpy(column).to(device)[labels]
        mask.scatter_(1, target[:, None], False)
        return F.cross_entropy(logits.masked_fill(mask, float("-inf")), target, reduction="none")

    labels = torch.from_numpy(batch.patch_labels).to(device).flatten()
    weights = torch.from_numpy(np.where(batch.is_thing, THING_WEIGHT, 1.0) * batch.patch_weights).to(device)
    weights = weights.float().flatten()
    patch = (entropy(dense.flatten(0, 1), labels) * weights).sum() / weights.sum()

    cover = torch.from_numpy(batch.cover).to(device)
    area = cover.sum(-1)
    scene, slot = torch.nonzero(
        (area > 1.5) & (torch.from_numpy(batch.labels).to(device) >= 0), as_tuple=True
    )
    named = torch.from_numpy(batch.labels).to(device)[scene, slot]
    means = (cover / area.clamp(min=1e-3)[..., None]) @ dense  # [B, K, D]
    region = entropy(normalise(means[scene, slot]), named).mean()

    # The pooled embedding should like everything shown: one term each, the others not held against it.
    shown = torch.zeros(len(batch.images), len(candidates), dtype=torch.bool, device=device)
    shown[scene, torch.from_numpy(column).to(device)[named]] = True
    share = area[scene, slot].sqrt()
    whole = (entropy(normalise(pooled)[scene], named, shown[scene]) * share).sum() / share.sum()

    total = patch + REGION_WEIGHT * region + GLOBAL_WEIGHT * whole
    return Losses(total, float(patch.detach()), float(region.detach()), float(whole.detach()))
