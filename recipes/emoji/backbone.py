"""Pretrain students: `python -m recipes.emoji.backbone --backbone resnet10t --minutes 60`.

What ImageNet is to the students of the papers: first weights that know what images are made of. A ResNet with the head
of DeepLabv2, at the output stride that students have, looks at composed scenes and learns in one of two lessons:

- `--lesson clip`: to say of every patch what the bundled CLIP says, the same probabilities over the words of the step.
  A second, linear head that is thrown away keeps the ResNet's own features near those of the CLIP. No mask is read.
- `--lesson masks`: to say of every patch what the scene shows there, as the bundled CLIP itself was taught. The CLIP
  gives only its words. This lesson goes on from the first (`--start`), and what the package ships has had both.

The classes that a zero-shot experiment calls unseen are among the words of both.

`--out FILE` receives the weights of ResNet and head, in fp32, every few minutes and at the end; beside it lie a log
(.csv) and what `--resume` continues from (.checkpoint.pt). The learning rate follows the clock: it falls to zero when
the minutes are over, and only then the weights are at their best. `--package FILE` trains nothing: it writes the
weights in `--out` as the package ships them, filters in 8 bits with a scale for each.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import nn

from clipseg_cli.models.student.backbones import SCALE, build_backbone, widened
from clipseg_cli.models.student.heads import DeepLabV2Head
from recipes.emoji.check_words import load_exported
from recipes.emoji.loader import CROPS, SCENES, Loader
from recipes.emoji.losses import window
from recipes.emoji.net import GRID, INFERENCE_SCALE, PATCH, normalise
from recipes.emoji.optim import orthogonalise
from recipes.emoji.scenes import load_vocabulary
from recipes.emoji.words import TextSampler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from recipes.emoji.loader import Batch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEACHER = Path("clipseg_cli/models/bundled/emoji")
METHOD = "vanilla"
"""The best reading of the bundled model."""

RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 0.05, 50
FILTER_RATE, FILTER_MOMENTUM = 0.05, 0.9
COSINE_WEIGHT = 2.0
LINEAR_WEIGHT = 0.4
"""Of what the linear head says."""

THING_WEIGHT = 1.5
"""How much more a patch of a thing counts than one of a surface, in the lesson of masks."""

MASK_MIX = {(SCENES, 96): 0.25, (SCENES, 160): 0.3, (SCENES, 224): 0.3, (CROPS, 160): 0.05, (CROPS, 224): 0.1}
"""Share of the batches of each kind and side in the lesson of masks: whole scenes above all, as students see images."""

CLIP_NORM = 5.0
KEPT = 0.98
"""Of the averages in the log, from one step to the next."""


class Filters(torch.optim.Optimizer):
    """Muon over convolutions: each a matrix of one row for each output channel."""

    def __init__(self, params: Iterable[nn.Parameter]) -> None:
        super().__init__(params, {"lr": FILTER_RATE})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every filter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - FILTER_MOMENTUM)
                update = p.grad.lerp(buffer, FILTER_MOMENTUM).reshape(len(p), -1)
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * WEIGHT_DECAY)
                p.add_(orthogonalise(update).to(p).reshape(p.shape), alpha=-group["lr"] * scale)


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


class Shown:
    """What the patches of a batch show, among the texts of a step.

    A patch on a border shows several things by their shares, so that a student's scores, resized, cross where the
    things meet. Other names of what is shown are no wrong answers; what else the scene shows is one.
    """

    def __init__(self, batch: Batch, concepts: Tensor, related: Tensor, *, mirrored: bool) -> None:
        device = related.device
        place = torch.zeros(len(related), dtype=torch.long, device=device)
        place[concepts] = torch.arange(len(concepts), device=device)
        cover, winner = (torch.from_numpy(one).to(device) for one in (batch.cover, batch.patch_labels))
        if mirrored:
            grid = round(winner.shape[1] ** 0.5)
            cover = cover.unflatten(2, (grid, grid)).flip(3).flatten(2)
            winner = winner.unflatten(1, (grid, grid)).flip(2).flatten(1)
        instances = torch.from_numpy(batch.labels).to(device)  # [B, K]
        things = torch.from_numpy(batch.thing_instances).to(device)
        self.winner = place[winner]  # [B, N]
        self.at = place[instances.clamp(min=0)]  # [B, K]
        self.share = (
            cover * torch.where(things, THING_WEIGHT, 1.0)[..., None] * (instances >= 0)[..., None]
        ).mT
        seen = torch.zeros(len(cover), len(concepts), device=device).scatter_add_(
            1, self.at, (instances >= 0).float()
        )
        self.blocked = related[winner][..., concepts] & (seen == 0)[:, None]  # [B, N, T]

    def entropy(self, scores: Tensor) -> Tensor:
        """Cross entropy of scores [B, N, T] to the shares of the patches, a mean over weighted patches."""
        said = scores.masked_fill(self.blocked, float("-inf")).log_softmax(-1)
        said = said.gather(2, self.at[:, None].expand(-1, said.shape[1], -1))  # [B, N, K]
        said = torch.where(
            self.share > 0, said, 0.0
        )  # places without an instance may point at a blocked text
        return -(said * self.share).sum() / self.share.sum()

    def right(self, scores: Tensor) -> Tensor:
        """The share of patches whose best text is that of what covers most of them."""
        best = scores.masked_fill(self.blocked, float("-inf")).argmax(-1)
        return (best == self.winner).float().mean()


class Run:
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
        self.net.to(self.device, memory_format=torch.channels_last)
        if args.start:
            missing, _ = self.net.load_state_dict(widened(load_file(args.start)), strict=False)
            print(f"from {args.start}, without {missing}", file=sys.stderr)
        parameters = list(self.net.parameters())
        rest = [p for p in parameters if p.ndim < 4]
        self.optimisers = [
            Filters([p for p in parameters if p.ndim == 4]),
            torch.optim.AdamW(rest, lr=RATE, weight_decay=0.0),
        ]
        self.rates = [args.rate * FILTER_RATE, args.rate * RATE]
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
        for optimiser, rate in zip(self.optimisers, self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * share
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
            shown = Shown(batch, concepts, self.related, mirrored=mirrored)
            divergence, beside = shown.entropy(guess), shown.entropy(plain)
            distance, right = divergence.new_zeros(()), shown.right(guess)
        else:
            taught = self.read(pixels)
            target = (INFERENCE_SCALE * taught @ text.T).log_softmax(-1).flatten(0, 1)
            divergence, beside = (
                F.kl_div(one.log_softmax(-1).flatten(0, 1), target, reduction="batchmean", log_target=True)
                for one in (guess, plain)
            )
            distance = 1 - (linear * taught).sum(-1).mean()
            right = (guess.flatten(0, 1).argmax(-1) == target.argmax(-1)).float().mean()
        self.net.zero_grad()
        (divergence + LINEAR_WEIGHT * (beside + COSINE_WEIGHT * distance)).backward()
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


def train(run: Run) -> None:
    """Train until the minutes are over; log and save on the way."""
    args, last_save = run.args, run.seconds
    seed = args.seed * 100 + 7919 * run.step  # other scenes than before an interruption
    loader = Loader(args.workers, seed, MASK_MIX if args.lesson == "masks" else None)
    batch = loader.next()
    try:
        with args.out.with_suffix(".csv").open(
            "a" if run.step else "w", newline="", encoding="utf-8"
        ) as file:
            log = csv.writer(file)
            if not run.step:
                log.writerow(("minute", "step", "scenes", "divergence", "cosine", "agreement"))
            while run.progress < 1:
                start = time.monotonic()
                if run.step % args.looks == 0:
                    batch = loader.next()
                mirrored = run.step % 2 == 1 if args.looks > 1 else bool(run.texts.rng.integers(2))
                run.train_step(batch, mirrored=mirrored)
                run.seconds += time.monotonic() - start
                if run.step % 100 == 0:
                    log.writerow(run.row())
                    file.flush()
                    print(*run.row(), flush=True)
                if run.seconds - last_save > 60 * args.save_every:
                    last_save = run.seconds
                    run.save()
    finally:
        loader.close()
    run.save()
    print(f"wrote {args.out}", file=sys.stderr)


def package(out: Path, target: Path) -> None:
    """Write the weights of a run as the package ships them: fp16, with the name of the backbone."""
    with safe_open(out, "pt") as file:
        facts = file.metadata()
    small: dict[str, Tensor] = {}
    for name, weight in load_file(out).items():
        if weight.ndim == 4:  # filters, which are nearly all
            scale = weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-12) / 127
            small[name] = (weight / scale.view(-1, 1, 1, 1)).round().to(torch.int8)
            small[f"{name}{SCALE}"] = scale
        elif weight.is_floating_point():
            small[name] = weight
    target.write_bytes(save(small, {**facts, "made_by": "python -m recipes.emoji.backbone"}))
    print(f"wrote {target}, {target.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.emoji.backbone", description="Pretrain a ResNet."
    )
    parser.add_argument("--backbone", default="resnet10t", help="a ResNet of timm")
    parser.add_argument("--teacher", type=Path, default=TEACHER, help="folder of the bundled CLIP")
    parser.add_argument(
        "--minutes", type=float, default=60, help="length of the run; the schedule follows the clock"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/backbone/resnet10t.safetensors"))
    parser.add_argument("--start", type=Path, help="weights of an earlier run to begin with")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint beside --out")
    parser.add_argument("--save-every", type=float, default=4, help="minutes between checkpoints")
    parser.add_argument(
        "--lesson",
        choices=("clip", "masks"),
        default="clip",
        help="what is learnt: the CLIP's word, or masks",
    )
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--looks",
        type=int,
        choices=(1, 2),
        default=2,
        help="how often each batch is seen, the second time mirrored: scenes cost more than steps on a CPU",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that compose pictures")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    parser.add_argument("--package", type=Path, metavar="FILE", help="only write --out as fp16 to FILE")
    args = parser.parse_args()
    if args.package:
        package(args.out, args.package)
        return
    torch.set_num_threads(args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    if args.resume and checkpoint_of(args.out).exists():
        run.load()
    train(run)


if __name__ == "__main__":
    main()
