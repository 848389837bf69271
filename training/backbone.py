"""Pretrain a ResNet for `clipseg train --init FILE`: `python -m training.backbone --backbone resnet10t --minutes 20`.

What ImageNet is to the students of the papers, on the generator's own pictures: one thing on a painted surface, and
which of the concepts it is. There are no masks and no boxes; as in ImageNet, the classes that a zero-shot experiment
calls unseen are among the concepts.
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
from safetensors.torch import load_file, save_file

from training.scenes import Scene, SceneMaker, SceneStyle, load_vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from training.scenes import Vocabulary

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDES = (64, 80, 96, 112)
BATCH = 64
RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 0.05, 100


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


def batches(vocabulary: Vocabulary, seed: int, queue: Queue[tuple[Tensor, Tensor]]) -> None:
    """Fill the queue with uint8 pictures [B, 3, S, S] and concept numbers [B], for ever."""
    cv2.setNumThreads(1)
    maker = ThingMaker(vocabulary, seed, SceneStyle(voc_share=0.4))
    while True:
        side = int(maker.rng.choice(SIDES))
        things = [maker.thing(side) for _ in range(BATCH)]
        pictures = torch.from_numpy(np.stack([image for image, _ in things])).permute(0, 3, 1, 2)
        queue.put((pictures, torch.tensor([label for _, label in things])))


def loss_of(logits: Tensor, labels: Tensor, related: Tensor) -> Tensor:
    """Cross-entropy in which a wider or narrower word for the same thing is no rival."""
    rivals = related[labels].clone()
    rivals[torch.arange(len(labels)), labels] = False
    return F.cross_entropy(logits.masked_fill(rivals, -1e4), labels, label_smoothing=0.0)


def train(args: argparse.Namespace) -> None:
    """Train until the minutes are over, then write the weights without the classifier."""
    torch.manual_seed(args.seed)
    vocabulary = load_vocabulary()
    net = timm.create_model(args.backbone, num_classes=len(vocabulary.concepts)).to(
        memory_format=torch.channels_last
    )
    if args.start:
        missing, _ = net.load_state_dict(load_file(args.start), strict=False)
        print(f"from {args.start}, without {missing}", file=sys.stderr)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}], lr=RATE
    )
    related = torch.from_numpy(vocabulary.related)
    mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    queue: Queue[tuple[Tensor, Tensor]] = Queue(8)
    for worker in range(args.workers):
        Thread(target=batches, args=(vocabulary, args.seed * 100 + worker, queue), daemon=True).start()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    start, step, recent = time.monotonic(), 0, (0.0, 0.0)
    with args.out.with_suffix(".csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(("minute", "step", "pictures", "loss", "accuracy"))
        while (done := (time.monotonic() - start) / (60 * args.minutes)) < 1:
            for group in optimiser.param_groups:
                group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))
            pictures, labels = queue.get()
            image = ((pictures.float() - mean) / std).contiguous(memory_format=torch.channels_last)
            if torch.rand(()) < 0.5:
                image = image.flip(3)
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                logits = net(image)
            loss = loss_of(logits.float(), labels, related)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            accuracy = float((logits.argmax(1) == labels).float().mean())
            recent = (0.98 * recent[0] + 0.02 * float(loss.detach()), 0.98 * recent[1] + 0.02 * accuracy)
            step += 1
            if step % 200 == 0:
                weight = 1 - 0.98**step
                row = (
                    f"{(time.monotonic() - start) / 60:.1f}",
                    step,
                    step * BATCH,
                    f"{recent[0] / weight:.3f}",
                    f"{recent[1] / weight:.3f}",
                )
                log.writerow(row)
                file.flush()
                print(*row, flush=True)
    classifier = net.default_cfg["classifier"]
    weights = {k: v.contiguous() for k, v in net.state_dict().items() if not k.startswith(f"{classifier}.")}
    save_file(weights, args.out, metadata={"backbone": args.backbone})
    print(f"wrote {args.out}", file=sys.stderr)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m training.backbone", description="Pretrain a ResNet.")
    parser.add_argument("--backbone", default="resnet10t", help="a ResNet of timm")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/backbone/resnet10t.safetensors"))
    parser.add_argument("--start", type=Path, help="weights of an earlier run to begin with")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="threads that compose pictures")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
