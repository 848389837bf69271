"""How much longer labelling takes with a memory of corrected images: `python -m benchmarks.labelling FOLDER`.

The same images are read, labelled and written through the loop of `clipseg segment` by turns, with words alone and with
a bank of images that were corrected. Prints seconds an image of both, and the median of the ratios of each two turns
beside each other, in wall time and in time of all threads.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import index
from benchmarks.segment import pipeline
from benchmarks.turns import beside
from clipseg_cli.commands.segment import prepare_segmentation
from clipseg_cli.config import DataConfig, SegmentConfig
from clipseg_cli.inference.dataset import open_data


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labelling", description=__doc__)
    parser.add_argument("folder", help="a data set")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--learn", default="train", help="split to learn from, or a file of names")
    parser.add_argument("--split", default="val", help="split to label, or a file of names")
    parser.add_argument("--corrected", type=int, default=20, help="images of the bank")
    parser.add_argument("--images", type=int, default=40, help="how many are labelled")
    parser.add_argument("--short-side", type=int)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of torch; default: all cores")
    parser.add_argument("--turns", type=int, default=6)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    common: dict[str, Any] = {
        "model": args.model,
        "stride": args.stride,
        "short_side": args.short_side,
        "precision": args.precision,
        "device": args.device,
    }
    learnt, _ = open_data(DataConfig(dataset=args.folder, split=args.learn), "label")
    labelled, _ = open_data(DataConfig(dataset=args.folder, split=args.split), "score")
    images = tuple(str(sample.source) for sample in labelled.samples[: args.images])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bank, words = work / "bank", work / "classes.txt"
        names = [str(sample.source.relative) for sample in learnt.samples[: args.corrected]]
        index({**common, "labels": args.folder}, names, bank)
        words.write_text("".join(f"{name}\n" for name in labelled.classes.names))
        common |= {"images": images, "classes": str(words), "background": "none"}
        plain = prepare_segmentation(SegmentConfig(**common, out=work / "plain"))
        memory = prepare_segmentation(SegmentConfig(**common, memory=str(bank), out=work / "memory"))
        taken = beside(
            {"memory": lambda: pipeline(memory), "plain": lambda: pipeline(plain)},
            args.turns,
            ("wall", "cpu"),
        )
    print(
        f"{args.model}, {len(images)} images, {torch.get_num_threads()} threads, {plain.predictor.dtype} on "
        f"{plain.device}, median of {args.turns} turns"
    )
    for clock, (seconds, ratio) in taken.items():
        each = ", ".join(f"{name} {value / len(images):.4f}" for name, value in seconds.items())
        print(f"{clock:4s} seconds an image: {each}; ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
