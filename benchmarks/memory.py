"""What a memory of a few corrected images is worth on a folder with ground truth.

    python -m benchmarks.memory FOLDER --model emoji --images 3,10,20,60 --draws 5

Learns from images drawn from one split, labels another, and prints the mean mIoU over the draws, seconds of fitting,
and the time of an image relative to the plain method at the same size. All train images are indexed once by
`clipseg index`, and each bank takes its part of them over; each image that is scored goes through the tower once, and
from there on through the loop of `clipseg eval` for each bank.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from clipseg_cli.commands.index import prepare_index
from clipseg_cli.config import DataConfig, EvalConfig, IndexConfig
from clipseg_cli.data.datasets import read_label
from clipseg_cli.data.images import read_image
from clipseg_cli.inference.dataset import open_data
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.memory.files import IMAGES
from clipseg_cli.ops.metrics import confusion_matrix, score

if TYPE_CHECKING:
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.types import DenseFeatures


class LastCall:
    """A reader that answers the same question twice without computing it again."""

    def __init__(self, reader: Any) -> None:
        self.reader, self.patch, self.logits = reader, reader.patch, reader.logits
        self.asked: torch.Tensor | None = None
        self.seconds = 0.0

    def __call__(self, images: torch.Tensor, regions: torch.Tensor | None = None) -> DenseFeatures:
        """As the reader."""
        if self.asked is None or not torch.equal(self.asked, images):
            start = time.process_time()
            self.asked, self.answer = images, self.reader(images)
            self.seconds += time.process_time() - start
        return cast("DenseFeatures", self.answer)


def index(options: dict[str, Any], names: list[str], out: Path, base: Path | None = None) -> None:
    """A bank of some images; files of the bank `base` are taken over where they are the same."""
    if base is not None:
        shutil.copytree(base / IMAGES, out / IMAGES, copy_function=lambda a, b: Path(b).hardlink_to(a))
    split = out.with_suffix(".txt")
    split.write_text("".join(f"{name}\n" for name in names))
    for image in prepare_index(IndexConfig(**options, split=str(split), out=out), {}):
        if image.error is not None:
            raise image.error


def banks(args: argparse.Namespace, options: dict[str, Any], work: Path) -> dict[tuple[int, int], Path]:
    """(images, draw) -> its bank."""
    learnt, _ = open_data(DataConfig(dataset=args.folder, split=args.learn), "label")
    names = [str(sample.source.relative) for sample in learnt.samples]
    everything = work / "everything"
    index(options, names, everything)
    found = {}
    for count in args.images:
        for draw in range(args.draws if count < len(names) else 1):
            chosen = torch.randperm(len(names), generator=torch.Generator().manual_seed(draw))[
                :count
            ].tolist()
            found[count, draw] = work / f"{count}-{draw}"
            index(options, [names[i] for i in chosen], found[count, draw], everything)
    for name in args.lists:
        chosen = Path(name).read_text().split()
        found[len(chosen), 1000 + len(found)] = work / f"list{len(found)}"
        index(options, chosen, work / f"list{len(found) - 1}", everything)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--images", type=lambda t: [int(n) for n in t.split(",")], default=[3, 10, 20, 60])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--learn", default="train", help="split to draw from")
    parser.add_argument("--split", default="val", help="split to score on")
    parser.add_argument("--short-side", type=int)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--lists", nargs="*", default=[], help="files of names, each a bank more")
    parser.add_argument("--vote", action="store_true", help="vote in superpixels")
    args = parser.parse_args()
    common = {"model": args.model, "stride": args.stride}
    options = {**common, "labels": args.folder, "short_side": args.short_side}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = banks(args, options, work)
        measure(args, common, found)


def measure(args: argparse.Namespace, common: dict[str, Any], found: dict[tuple[int, int], Path]) -> None:
    """Label one split with each bank, and print what came out."""
    extra: dict[str, Any] = {"regions": "superpixels", "region_vote": True} if args.vote else {}
    base = EvalConfig(**common, dataset=args.folder, split=args.split, **extra)
    dataset, protocol = open_data(base, "score")
    predictors: dict[tuple[int, int], Predictor] = {}
    fitting: dict[int, list[float]] = {}
    reader: Any = None
    backbone: Any = None
    for (count, draw), bank in found.items():
        plan = plan_clip(EvalConfig(**common, memory=str(bank), **extra), protocol)
        backbone = backbone or plan.backbone()
        start = time.process_time()
        predictors[count, draw] = predictor = plan.predictor(backbone, dataset.classes)
        fitting.setdefault(count, []).append(time.process_time() - start)
        reader = reader or LastCall(predictor.reader)
        predictor.reader = reader
    classes, asking = len(dataset.classes), dict.fromkeys(predictors, 0.0)
    matrices = {key: torch.zeros(classes, classes + 1, dtype=torch.int64) for key in predictors}
    for sample in dataset.samples:
        image = read_image(sample.source)
        truth = torch.from_numpy(read_label(sample, dataset))
        for key, predictor in predictors.items():
            start, before = time.process_time(), reader.seconds
            (result,) = predictor.predict([predictor.prepare(image)])
            asking[key] += time.process_time() - start - (reader.seconds - before)
            matrices[key] += confusion_matrix(torch.from_numpy(result.labels), truth, classes)
    images = len(dataset.samples)
    rows = []
    for count in sorted({key[0] for key in predictors}):
        own = {key: 100 * score(matrices[key]).miou for key in predictors if key[0] == count}
        drawn = [value for key, value in own.items() if key[1] < 1000]
        listed = [value for key, value in own.items() if key[1] >= 1000]
        rows.append(
            {
                "images": count,
                "miou": round(float(np.mean(drawn)), 1) if drawn else None,
                "each": [round(value, 1) for value in drawn],
                "lists": [round(value, 1) for value in listed],
                "fitting_cpu_seconds": round(float(np.mean(fitting[count])), 1),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    tower, rest = reader.seconds / images, sum(asking.values()) / len(asking) / images
    print(f"CPU seconds an image: tower {tower:.2f}, all else {rest:.2f}")


if __name__ == "__main__":
    main()
