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
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from clipseg_cli.models.student.backbones import SCALE
from recipes.emoji.loader import CROPS, SCENES, Loader
from recipes.emoji.pretraining import Pretraining, checkpoint_of

if TYPE_CHECKING:
    from torch import Tensor

TEACHER = Path("clipseg_cli/models/bundled/emoji")
MASK_MIX = {(SCENES, 96): 0.25, (SCENES, 160): 0.3, (SCENES, 224): 0.3, (CROPS, 160): 0.05, (CROPS, 224): 0.1}
"""Share of the batches of each kind and side in the lesson of masks: whole scenes above all, as students see images."""


def train(run: Pretraining) -> None:
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
    parser.add_argument("--lr-scale", type=float, default=1.0, help="factor on the learning rates")
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
    parser.add_argument("--workers", type=int, default=1, help="processes that compose images")
    parser.add_argument("--no-bf16", dest="bf16", action="store_false")
    parser.add_argument("--package", type=Path, metavar="FILE", help="only write --out as fp16 to FILE")
    args = parser.parse_args()
    if args.package:
        package(args.out, args.package)
        return
    torch.set_num_threads(args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    run = Pretraining(args)
    if args.resume and checkpoint_of(args.out).exists():
        run.load()
    train(run)


if __name__ == "__main__":
    main()
