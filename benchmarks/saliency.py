"""How well the foreground is found: `python -m benchmarks.saliency --dataset samples/emoji-voc --model emoji`.

Every class of a data set but the background counts as foreground; what is void is left out. Images are seen at the
size at which the model reads them densely. Prints the IoU over all pixels, and its mean over the images.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from clipseg_cli.config import IGNORE_INDEX, EvalConfig
from clipseg_cli.data.datasets import read_label
from clipseg_cli.data.images import read_image, resize_image, target_size
from clipseg_cli.inference.auxiliary import load_saliency
from clipseg_cli.inference.dataset import open_data
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.clip.towers import patch_of
from clipseg_cli.ops.reduce import upsample

if TYPE_CHECKING:
    from clipseg_cli.models.auxiliary.saliency import Saliency
    from clipseg_cli.models.clip.backbones import Backbone
    from clipseg_cli.types import Dataset


@torch.inference_mode()
def foreground_ious(
    saliency: Saliency, backbone: Backbone, dataset: Dataset, side: int
) -> list[tuple[int, int]]:
    """Pixels in both and in either of what is found and what is there, image by image."""
    pixels = []
    for sample in dataset.samples:
        image = read_image(sample.source).pixels
        height, width = image.shape[:2]
        truth = read_label(sample, dataset, (height, width))
        multiple = patch_of(backbone.model.visual)
        size = target_size(height, width, short_side=side, long_side=2048, multiple=multiple)
        seen = torch.from_numpy(resize_image(image, size, antialias=True).copy()).permute(2, 0, 1)
        found = upsample(saliency(seen[None].float() / 255), (height, width))[0, 0].numpy() > 0.5
        scored = (truth >= 0) & (truth != IGNORE_INDEX)
        there = scored & (truth != dataset.classes.background)
        pixels.append((int((found & there).sum()), int(((found & scored) | there).sum())))
    return pixels


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="samples/emoji-voc")
    parser.add_argument("--splits", default="train,val")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--saliency", default="clip,found", help="kinds, by comma")
    parser.add_argument("--short-side", type=int, help="default: that of the model")
    args = parser.parse_args()
    backbone = load_backbone(args.model, None, torch.device("cpu"))
    table = Table(title=f"foreground of {args.dataset}, {backbone.name} {backbone.fingerprint}")
    for column in ("saliency", "split", "images", "IoU", "mean of images", "s / image"):
        table.add_column(column, justify="left" if column in ("saliency", "split") else "right")
    for kind in args.saliency.split(","):
        config = EvalConfig(dataset=args.dataset, model=args.model, saliency=kind)
        saliency = load_saliency(config, backbone, torch.device("cpu"), torch.float32)
        if saliency is None:
            parser.error(f"--saliency {kind} finds nothing")
        for split in args.splits.split(","):
            dataset, _ = open_data(dataclasses.replace(config, split=split), "score")
            began = time.perf_counter()
            pixels = foreground_ious(saliency, backbone, dataset, args.short_side or backbone.short_side)
            spent = (time.perf_counter() - began) / len(pixels)
            both, either = np.array(pixels).T
            mean = (both / np.maximum(either, 1)).mean()
            iou = both.sum() / either.sum()
            table.add_row(kind, split, str(len(pixels)), f"{iou:.3f}", f"{mean:.3f}", f"{spent:.2f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()
