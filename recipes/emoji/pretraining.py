"""One pretraining of a student's ResNet: network, teacher, optimisers and clock."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from clipseg_cli.models.student.backbones import build_backbone, widened
from clipseg_cli.models.student.heads import DeepLabV2Head
from recipes.emoji.fast_tower import GRID, PATCH
from recipes.emoji.losses import window
from recipes.emoji.net import INFERENCE_SCALE, normalise
from recipes.emoji.optim import FilterMuon
from recipes.emoji.patch_targets import PatchTargets
from recipes.emoji.vocabulary import load_vocabulary
from recipes.emoji.weights import load_exported
from recipes.emoji.words import TextSampler

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from torch import Tensor

    from recipes.emoji.loader import Batch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
METHOD = "vanilla"
"""The best reading of the bundled model."""

LR, WEIGHT_DECAY, WARM_UP = 2e-3, 0.05, 50
FILTER_LR, FILTER_MOMENTUM = 0.05, 0.9
COSINE_WEIGHT = 2.0
LINEAR_WEIGHT = 0.4
"""Of what the linear head says."""

CLIP_NORM = 5.0
KEPT = 0.98
"""Of the averages in the log, from one step to the next."""


class Network(nn.Module):
    """ResNet and DeepLabv2 head as students have them, and a linear head that is thrown away."""

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        self.backbone, (channels,) = build_backbone(name, PATCH, (4,))
        self.head = DeepLabV2Head(channels, width)
        self.linear = nn.Conv2d(channels, width, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] -> features [B, N, D] of the patches by the head, and unit features [B, N, D] by the other."""
        stages = self.backbone(image)
        features: Tensor = self.head(stages).float().flatten(2).mT
        return features, normalise(self.linear(stages[-1]).float().flatten(2).mT)


class Pretraining:
    """One pretraining: network, teacher, optimisers and clock; saved and loaded as a whole."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        torch.manual_seed(args.seed)
        self.device = torch.device(args.device)
        self.vocabulary = load_vocabulary()
        self.teacher = load_exported(args.teacher).requires_grad_(False).to(self.device)
        self.texts = TextSampler(self.vocabulary.concepts, 24, args.seed)
        self.texts.progress = 1.0
        self.net = Network(args.backbone, self.teacher.clip.text_projection.shape[1])
        self.net.to(self.device)
        self.net.to(memory_format=torch.channels_last)
        if args.start:
            missing, _ = self.net.load_state_dict(widened(load_file(args.start)), strict=False)
            print(f"from {args.start}, without {missing}", file=sys.stderr)
        parameters = list(self.net.parameters())
        rest = [p for p in parameters if p.ndim < 4]
        self.optimisers = [
            FilterMuon([p for p in parameters if p.ndim == 4], FILTER_LR, FILTER_MOMENTUM, WEIGHT_DECAY),
            torch.optim.AdamW(rest, lr=LR, weight_decay=0.0),
        ]
        self.lrs = [args.lr_scale * FILTER_LR, args.lr_scale * LR]
        self.related = torch.from_numpy(self.vocabulary.related).to(self.device)  # [C, C]
        self.mean, self.std = (
            255 * torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (MEAN, STD)
        )
        self.step, self.seconds, self.scenes = 0, 0.0, 0
        # Divergence, cosine and agreement, averaged over the last steps; asked for at a row of the log only.
        self.recent = torch.zeros(3, device=self.device)

    @property
    def progress(self) -> float:
        """The share of the minutes that is over."""
        return min(self.seconds / (60.0 * float(self.args.minutes)), 1.0)

    @torch.no_grad()
    def read(self, pixels: Tensor) -> Tensor:
        """What the teacher sees: unit features [B, N, D]."""
        offset = window(GRID, pixels.shape[2] // PATCH, self.texts.rng)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.bf16):
            features, _ = self.teacher.readings(pixels, (METHOD,), offset)
        return normalise(features[METHOD].float())

    @torch.no_grad()
    def words(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The concepts of a step, and their unit texts: [T] and [T, D]."""
        candidates = self.texts.candidates(batch.labels)
        tokens = self.texts.tokens(candidates).to(self.device)
        return torch.from_numpy(candidates).to(self.device), normalise(self.teacher.encode_text(tokens))

    def train_step(self, batch: Batch, *, mirrored: bool) -> None:
        """One batch of scenes, or of their mirror images."""
        share = min(1.0, (self.step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * self.progress))
        for optimiser, lr in zip(self.optimisers, self.lrs, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = lr * share
        pixels = torch.from_numpy(batch.images).to(self.device).permute(0, 3, 1, 2)
        if mirrored:
            pixels = pixels.flip(3)
        concepts, text = self.words(batch)
        centred = normalise(text - text.mean(dim=0))  # as students classify
        image = ((pixels.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.bf16):
            found, linear = self.net(image)
        guess, plain = found @ centred.T, INFERENCE_SCALE * linear @ text.T  # [B, N, T]
        if self.args.lesson == "masks":
            targets = PatchTargets(batch, concepts, self.related, mirrored=mirrored)
            divergence, linear_loss = targets.cross_entropy(guess), targets.cross_entropy(plain)
            distance, right = divergence.new_zeros(()), targets.accuracy(guess)
        else:
            taught = self.read(pixels)
            target = (INFERENCE_SCALE * taught @ text.T).log_softmax(-1).flatten(0, 1)
            divergence, linear_loss = (
                F.kl_div(one.log_softmax(-1).flatten(0, 1), target, reduction="batchmean", log_target=True)
                for one in (guess, plain)
            )
            distance = 1 - (linear * taught).sum(-1).mean()
            right = (guess.flatten(0, 1).argmax(-1) == target.argmax(-1)).float().mean()
        self.net.zero_grad()
        (divergence + LINEAR_WEIGHT * (linear_loss + COSINE_WEIGHT * distance)).backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), CLIP_NORM)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.scenes += len(pixels)
        self.recent.lerp_(torch.stack([divergence.detach(), 1 - distance.detach(), right]), 1 - KEPT)

    def row(self) -> tuple[str | int, ...]:
        """Where the run stands, for the log."""
        weight = 1 - KEPT**self.step
        averages = (f"{value / weight:.3f}" for value in self.recent.tolist())
        return (f"{self.seconds / 60:.1f}", self.step, self.scenes, *averages)

    def save(self) -> None:
        """Weights and checkpoint, each written beside and renamed."""
        kept = self.net.state_dict().items()
        weights = {k: v.cpu().contiguous() for k, v in kept if not k.startswith("linear.")}
        state = {
            "net": self.net.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "counters": [self.step, self.seconds, self.scenes],
            "recent": self.recent,
        }
        out, checkpoint = self.args.out, checkpoint_of(self.args.out)
        part = out.with_suffix(".part")
        save_file(weights, part, metadata={"backbone": self.args.backbone})
        part.replace(out)
        torch.save(state, part)
        part.replace(checkpoint)

    def load(self) -> None:
        """Continue from the checkpoint."""
        state = torch.load(checkpoint_of(self.args.out), map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds, self.scenes = state["counters"]
        self.recent.copy_(torch.as_tensor(state["recent"]))
        torch.manual_seed(self.args.seed + self.step)


def checkpoint_of(out: Path) -> Path:
    """What a run into `out` continues from."""
    return out.with_suffix(".checkpoint.pt")
