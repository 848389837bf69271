"""Pretrain a ResNet for students: `python -m training.backbone --backbone resnet10t --minutes 30`.

What ImageNet is to the students of the papers, on the generator's own pictures: one thing on a painted surface, and
which of the concepts it is. There are no masks and no boxes; as in ImageNet, the classes that a zero-shot experiment
calls unseen are among the concepts.

`--out FILE` receives the weights without the classifier, in fp32, every few minutes and at the end; beside it lie a log
(.csv) and what `--resume` goes on from (.checkpoint.pt). The learning rate follows the clock: it falls to zero when the
minutes are over, and only then the weights are at their best. `--package FILE` trains nothing: it writes the weights in
`--out` as the package ships them, in fp16.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING

import cv2
import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from training.optim import orthogonalise
from training.scenes import Scene, SceneMaker, SceneStyle, load_vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import Tensor, nn


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDES, LATE_SIDES = (48, 64, 80), (64, 80, 96, 112)
LATE = 0.65
"""Share of the minutes after which the pictures are larger."""

BATCH = 128
RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 0.05, 50
FILTER_RATE, FILTER_MOMENTUM = 0.05, 0.9
KEPT = 0.98
"""Of the averages in the log, from one step to the next."""


class ThingMaker(SceneMaker):
    """Pictures of one thing that fills a third of the side or more."""

    def thing(self, side: int) -> tuple[NDArray[np.uint8], int]:
        """A picture [side, side, 3] and the number of its concept."""
        while True:
            scene: Scene = self._surfaces(side)
            before = len(scene.labels)
            self._place(scene, float(self.rng.uniform(0.35, 1.0) * side))
            if len(scene.labels) > before:
                return scene.image, scene.labels[-1]


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


def batches(run: Run, seed: int, queue: Queue[tuple[Tensor, Tensor]]) -> None:
    """Fill the queue with uint8 pictures [B, 3, S, S] and concept numbers [B], for ever."""
    cv2.setNumThreads(1)
    maker = ThingMaker(run.vocabulary, seed, SceneStyle(voc_share=0.4))
    while True:
        side = int(maker.rng.choice(SIDES if run.progress < LATE else LATE_SIDES))
        things = [maker.thing(side) for _ in range(BATCH)]
        pictures = torch.from_numpy(np.stack([image for image, _ in things])).permute(0, 3, 1, 2)
        queue.put((pictures, torch.tensor([label for _, label in things])))


def loss_of(logits: Tensor, labels: Tensor, related: Tensor) -> Tensor:
    """Cross-entropy in which a wider or narrower word for the same thing is no rival."""
    rivals = related[labels].clone()
    rivals[torch.arange(len(labels)), labels] = False
    return F.cross_entropy(logits.masked_fill(rivals, -1e4), labels, label_smoothing=0.0)


class Run:
    """One pretraining: network, optimiser and clock; saved and loaded as a whole."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        torch.manual_seed(args.seed)
        self.vocabulary = load_vocabulary()
        self.related = torch.from_numpy(self.vocabulary.related)
        self.net = timm.create_model(args.backbone, num_classes=len(self.vocabulary.concepts)).to(
            memory_format=torch.channels_last
        )
        if args.start:
            missing, _ = self.net.load_state_dict(load_file(args.start), strict=False)
            print(f"from {args.start}, without {missing}", file=sys.stderr)
        of = [[p for p in self.net.parameters() if p.ndim == n] for n in (4, 2, 1)]
        filters, matrices, vectors = of
        rest = [
            {"params": matrices, "weight_decay": WEIGHT_DECAY},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimisers = [Filters(filters), torch.optim.AdamW(rest, lr=RATE)]
        self.rates = [FILTER_RATE, RATE]
        self.mean, self.std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        self.step, self.seconds = 0, 0.0
        self.recent = [0.0, 0.0]  # loss and accuracy, averaged over the last steps

    @property
    def progress(self) -> float:
        """The share of the minutes that is over."""
        return min(self.seconds / (60.0 * float(self.args.minutes)), 1.0)

    def train_step(self, pictures: Tensor, labels: Tensor) -> None:
        """One batch: uint8 pictures [B, 3, S, S], concept numbers [B]."""
        share = min(1.0, (self.step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * self.progress))
        for optimiser, rate in zip(self.optimisers, self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * share
        image = ((pictures.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        if torch.rand(()) < 0.5:
            image = image.flip(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            logits = self.net(image)
        loss = loss_of(logits.float(), labels, self.related)
        self.net.zero_grad()
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        accuracy = (logits.argmax(1) == labels).float().mean()
        for i, value in enumerate((loss.detach(), accuracy)):
            self.recent[i] = KEPT * self.recent[i] + (1 - KEPT) * float(value)

    def row(self) -> tuple[str | int, ...]:
        """Where the run stands, for the log."""
        weight = 1 - KEPT**self.step
        averages = (f"{value / weight:.3f}" for value in self.recent)
        return (f"{self.seconds / 60:.1f}", self.step, self.step * BATCH, *averages)

    def save(self) -> None:
        """Weights and checkpoint, each written beside and renamed."""
        classifier = self.net.default_cfg["classifier"]
        weights = {
            k: v.contiguous() for k, v in self.net.state_dict().items() if not k.startswith(f"{classifier}.")
        }
        state = {
            "net": self.net.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "counters": [self.step, self.seconds],
            "recent": self.recent,
        }
        out, checkpoint = self.args.out, checkpoint_of(self.args.out)
        part = out.with_suffix(".part")
        save_file(weights, part, metadata={"backbone": self.args.backbone})
        part.replace(out)
        torch.save(state, part)
        part.replace(checkpoint)

    def load(self) -> None:
        """Go on from the checkpoint."""
        state = torch.load(checkpoint_of(self.args.out), weights_only=True)
        self.net.load_state_dict(state["net"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.seconds = state["counters"]
        self.recent = state["recent"]
        torch.manual_seed(self.args.seed + self.step)


def checkpoint_of(out: Path) -> Path:
    """What a run into `out` goes on from."""
    return out.with_suffix(".checkpoint.pt")


def train(run: Run) -> None:
    """Train until the minutes are over; log and save on the way."""
    args, last_save = run.args, run.seconds
    queue: Queue[tuple[Tensor, Tensor]] = Queue(8)
    for worker in range(args.workers):
        seed = args.seed * 100 + worker + 7919 * run.step  # other pictures than before an interruption
        Thread(target=batches, args=(run, seed, queue), daemon=True).start()
    with args.out.with_suffix(".csv").open("a" if run.step else "w", newline="", encoding="utf-8") as file:
        log = csv.writer(file)
        if not run.step:
            log.writerow(("minute", "step", "pictures", "loss", "accuracy"))
        while run.progress < 1:
            start = time.monotonic()
            run.train_step(*queue.get())
            run.seconds += time.monotonic() - start
            if run.step % 100 == 0:
                log.writerow(run.row())
                file.flush()
                print(*run.row(), flush=True)
            if run.seconds - last_save > 60 * args.save_every:
                last_save = run.seconds
                run.save()
    run.save()
    print(f"wrote {args.out}", file=sys.stderr)


def package(out: Path, target: Path) -> None:
    """Write the weights of a run as the package ships them: fp16, with the name of the backbone."""
    with safe_open(out, "pt") as file:
        facts = file.metadata()
    half = {k: v.half() for k, v in load_file(out).items() if v.is_floating_point()}
    if wrong := [k for k, v in half.items() if not v.isfinite().all()]:
        raise SystemExit(f"{out}: no fp16 can hold {', '.join(wrong)}")
    target.write_bytes(save(half, {**facts, "made_by": "python -m training.backbone"}))
    print(f"wrote {target}, {target.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m training.backbone", description="Pretrain a ResNet.")
    parser.add_argument("--backbone", default="resnet10t", help="a ResNet of timm")
    parser.add_argument(
        "--minutes", type=float, default=30, help="length of the run; the schedule follows the clock"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/backbone/resnet10t.safetensors"))
    parser.add_argument("--start", type=Path, help="weights of an earlier run to begin with")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint beside --out")
    parser.add_argument("--save-every", type=float, default=4, help="minutes between checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="threads that compose pictures")
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
