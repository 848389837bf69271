"""What the training loop costs beside the network: `python -m benchmarks.train --dataset samples/emoji-voc`.

Trains in two ways by turns: through the loop of `clipseg train`, which reads images, cuts crops, makes targets and
writes its log; and bare, forward and backward of the same network on one batch that lies in memory. Prints images per
second of both and the median of the ratios of each two turns beside each other, which should be 0.95 or more; and the
same ratio of the time that the training's own thread computes, which other processes and the threads that cut crops do
not touch.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.turns import beside
from clipseg_cli.commands.train import open_training
from clipseg_cli.config import TrainConfig
from clipseg_cli.ops.losses import segmentation_loss
from clipseg_cli.training.log import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from clipseg_cli.training.loop import TrainingRun


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--dataset", default="samples/emoji-voc")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--backbone", default=None)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--crop", type=int, default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--teacher", action="store_true", help="the CLIP labels each crop; else self-training"
    )
    parser.add_argument("--iterations", type=int, default=12, help="of each turn")
    parser.add_argument("--turns", type=int, default=4)
    options = parser.parse_args()
    total = options.iterations * (options.turns + 1)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            dataset=options.dataset,
            teacher=True,
            model=options.model,
            preset=options.preset,
            backbone=options.backbone,
            batch_size=options.batch_size,
            crop=options.crop,
            iterations=total + 1,
            guided=total + 1 if options.teacher else 0,
            init="none",
            validate_every=0,
            validation_images=1,
            device=options.device,
            precision=options.precision,
            compile=options.compile,
            out=Path(folder),
        )
        with open_training(config) as run:
            report(run, options.iterations, options.turns)


def report(run: TrainingRun, iterations: int, turns: int) -> None:
    """Take turns, the first of which does not count, and print what came out."""
    steps = (event for event in run if isinstance(event, Step))
    bare = bare_step(run)

    def turn_of(step: Callable[[], object]) -> Callable[[], object]:
        return lambda: [step() for _ in range(iterations)]

    found = beside({"bare": turn_of(bare), "loop": turn_of(lambda: next(steps))}, turns, ("wall", "own"))
    n = run.hparams
    images = n.batch_size * iterations
    print(
        f"{n.backbone}, batches of {n.batch_size} crops of {n.crop}, {run.dtype} on {run.device_name}, "
        f"median of {turns} turns of {iterations} iterations"
    )
    for name, seconds in found["wall"].seconds.items():
        print(f"{name:6s} {images / seconds:8.2f} images/s")
    print(f"ratio  {found['wall'].ratio:8.3f}")
    print(f"ratio of its own thread {found['own'].ratio:.3f}")


def bare_step(run: TrainingRun) -> Callable[[], None]:
    """Forward and backward of the run's own network on a batch that does not change."""
    n = run.hparams
    size = (n.batch_size // n.grad_accumulation, 3, n.crop, n.crop)
    image = torch.randn(size, device=run.device).contiguous(memory_format=torch.channels_last)
    classes = len(run.task.classes)
    labels = torch.randint(classes, (size[0], n.crop, n.crop), device=run.device)
    network = run.network
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0)

    def step() -> None:
        for _ in range(n.grad_accumulation):
            with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
                _, logits = network(image)
            segmentation_loss(logits, labels, ignore=255).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    main()
