"""Train the bundled model: `python -m recipes.emoji.train --minutes 60`.

Every step reads the tower in two or three of the tool's ways, and lets the class token name the image. Everything is
drawn on the fly; nothing but the artwork is downloaded. The schedule follows the clock: the learning rate falls to zero
when the minutes are over, and the weights are exported then (and every few minutes before).
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from recipes.emoji.concepts import all_words
from recipes.emoji.fast_tower import GRID, PATCH
from recipes.emoji.loader import Loader
from recipes.emoji.losses import compute, draw_readings, scale_at, window
from recipes.emoji.measure import READ_BY, evaluate, fixed_scenes
from recipes.emoji.net import INFERENCE_SCALE, MODEL_CFG, TinyClip
from recipes.emoji.optim import make_optimisers
from recipes.emoji.parity import check_parity
from recipes.emoji.vocabulary import heldout_vocabulary, load_vocabulary
from recipes.emoji.weights import begin_with, export
from recipes.emoji.words import TextSampler

WARM_UP_STEPS = 100
EMA_EVERY, EMA_DECAY = 8, 0.97
CLIP_NORM = 1.0
COLUMNS = (
    "minute",
    "step",
    "scenes",
    "patch",
    "region",
    "pooled",
    "train",
    "train_things",
    "heldout",
    "heldout_things",
    *READ_BY,
)


class Run:
    """One training run: model, optimisers, averaged weights, clock; saved and loaded as a whole."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = torch.device(args.device)
        torch.manual_seed(args.seed)
        self.vocabulary = load_vocabulary()
        self.texts = TextSampler(self.vocabulary.concepts, MODEL_CFG["text_cfg"]["context_length"], args.seed)
        self.model = TinyClip(self.texts.token_ids())
        gap = check_parity(self.model)
        if gap > 1e-4:
            raise RuntimeError(f"our forward differs from open_clip's by {gap:.1e}")
        if args.start:
            begin_with(self.model, args.start)
        self.model.to(self.device)
        self.optimisers = make_optimisers(self.model, args.lr_scale)
        self.first_lrs = [o.param_groups[0]["lr"] for o in self.optimisers]
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.rng = np.random.default_rng(args.seed)
        self.step, self.scenes, self.seconds = 0, 0, 0.0
        self.recent = {"patch": 0.0, "region": 0.0, "pooled": 0.0}
        self.test_scenes = {
            "train": fixed_scenes(self.vocabulary, args.eval_scenes, PATCH * GRID, seed=900_001),
            "heldout": fixed_scenes(heldout_vocabulary(), args.eval_scenes, PATCH * GRID, seed=900_002),
        }

    @property
    def progress(self) -> float:
        """The share of the minutes that is over."""
        return min(self.seconds / (60.0 * float(self.args.minutes)), 1.0)

    def train_step(self, loader: Loader) -> None:
        """One batch."""
        batch = loader.next()
        share = min(1.0, (self.step + 1) / WARM_UP_STEPS) * max(
            0.5 * (1 + np.cos(np.pi * self.progress)), 1e-3
        )
        for optimiser, lr in zip(self.optimisers, self.first_lrs, strict=True):
            optimiser.param_groups[0]["lr"] = float(lr * share)
            optimiser.zero_grad(set_to_none=True)
        offset = window(GRID, batch.images.shape[1] // PATCH, self.rng)
        scale = INFERENCE_SCALE if self.args.start else scale_at(self.progress)
        methods = draw_readings(self.rng, batch.images.shape[1])
        losses = compute(self.model, self.texts, batch, self.vocabulary.related, offset, scale, methods)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.scenes += len(batch.images)
        for name in self.recent:
            self.recent[name] += 0.02 * (getattr(losses, name) - self.recent[name])
        if self.step % EMA_EVERY == 0:
            self._average()

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(EMA_DECAY, (1 + self.step / EMA_EVERY) / (10 + self.step / EMA_EVERY))
        for key, value in self.model.state_dict().items():
            self.average[key].lerp_(value, 1 - decay)

    def report(self) -> dict[str, Any]:
        """Measure the averaged weights and say where the run stands."""
        own = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        scores = {name: evaluate(self.model, self.texts, scenes) for name, scenes in self.test_scenes.items()}
        few = self.test_scenes["heldout"][: self.args.eval_scenes // 3]
        by = {name: evaluate(self.model, self.texts, few, method=name) for name in READ_BY}
        self.model.load_state_dict(own)
        row: dict[str, Any] = {"minute": f"{self.seconds / 60:.1f}", "step": self.step, "scenes": self.scenes}
        row |= {name: f"{value:.3f}" for name, value in self.recent.items()}
        for name, score in scores.items():
            row |= {name: f"{score.everything:.4f}", f"{name}_things": f"{score.things:.4f}"}
        row |= {name: f"{score.everything:.4f}" for name, score in by.items()}
        return row

    def save(self) -> None:
        """Checkpoint and exported model, each written beside and renamed."""
        out: Path = self.args.out
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimisers": [o.state_dict() for o in self.optimisers],
            "counters": [self.step, self.scenes, self.seconds],
            "recent": self.recent,
        }
        temporary = out / "checkpoint.part"
        torch.save(state, temporary)
        temporary.replace(out / "checkpoint.pt")
        export(self.model, self.average, out / "model")
        words = "\n".join(all_words(self.vocabulary.concepts)) + "\n"
        (out / "model" / "words.txt").write_text(words, encoding="utf-8")

    def load(self) -> None:
        """Go on from the checkpoint."""
        state = torch.load(self.args.out / "checkpoint.pt", map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.scenes, self.seconds = state["counters"]
        self.recent = state["recent"]
        self.rng = np.random.default_rng(self.args.seed + self.step)
        self.texts.rng = np.random.default_rng(self.args.seed + self.step + 1)


def log_row(path: Path, row: dict[str, Any]) -> None:
    """Add a line to the CSV log and say it."""
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if fresh:
            writer.writeheader()
        writer.writerow(row)
    sys.stdout.write("  ".join(f"{k} {v}" for k, v in row.items()) + "\n")
    sys.stdout.flush()


def train(run: Run) -> None:
    """Train until the minutes are over; checkpoint, measure and export on the way."""
    args = run.args
    loader = Loader(args.workers, args.seed + 7919 * (1 + run.step))
    last_save = run.seconds
    last_measure = run.seconds
    try:
        while run.progress < 1:
            start = time.perf_counter()
            run.texts.progress = run.progress
            loader.progress.value = 1.0 if args.start else run.progress
            run.train_step(loader)
            run.seconds += time.perf_counter() - start
            if run.seconds - last_measure > 60 * args.measure_every:
                last_measure = run.seconds
                log_row(args.out / "log.csv", run.report())
            if run.seconds - last_save > 60 * args.save_every:
                last_save = run.seconds
                run.save()
    finally:
        loader.close()
    run.save()
    log_row(args.out / "log.csv", run.report())


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command-line options."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.emoji.train", description="Train the bundled model."
    )
    parser.add_argument(
        "--minutes", type=float, default=60, help="length of the run; the schedule follows the clock"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/emoji"), help="checkpoint, log and exported model"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--start", type=Path, help="folder of an exported model to begin with")
    parser.add_argument("--lr-scale", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=float, default=4, help="minutes between checkpoints")
    parser.add_argument("--measure-every", type=float, default=4, help="minutes between measurements")
    parser.add_argument("--eval-scenes", type=int, default=48, help="scenes of each art in a measurement")
    return parser.parse_args(argv)


def main() -> None:
    """Entry point."""
    args = parse()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    if args.resume and (args.out / "checkpoint.pt").exists():
        run.load()
    train(run)


if __name__ == "__main__":
    main()
