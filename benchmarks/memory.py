"""What a memory of a few corrected images is worth on a folder with ground truth.

    python -m benchmarks.memory FOLDER --model emoji --images 0,3,10,20,60 --draws 5
    python -m benchmarks.memory FOLDER --images 0,3,10,20 --draws 3 --order review,suggest,random

Learns from images of one split, labels another, and prints the mIoU (of random orders the mean over the draws),
seconds of fitting, and the time of an image. `--order` says which images are corrected first: those that `clipseg
review` trusts least, those that `clipseg index --suggest` names, or such as are drawn; with 0 images words decide
alone. All images to learn from are indexed once by `clipseg index`, and each bank takes its part of them over; each
image that is scored goes through the tower once, and from there on through the loop of `clipseg eval` for each bank.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch

from benchmarks.orders import drawn, least_trusted, suggested
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


RANDOM, SUGGEST, REVIEW = "random", "suggest", "review"
ORDERS = (RANDOM, SUGGEST, REVIEW)


class Learnt(NamedTuple):
    """What a bank was made of: so many images of an order; none for words alone."""

    images: int
    order: str
    draw: int = 0


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


def orders(args: argparse.Namespace, names: list[str], work: Path) -> dict[str, list[list[str]]]:
    """Name of an order -> the images as they are to be corrected, once for each draw."""
    options = ["--model", args.model, "--precision", args.precision, *sizes(args)]
    where, found = (args.folder, args.learn), dict[str, list[list[str]]]()
    for order in args.order:
        if order == RANDOM:
            found[order] = drawn(names, args.draws)
        elif order == SUGGEST:
            found[order] = [suggested(*where, min(max(args.images), len(names)), options, work)]
        else:
            found[order] = [least_trusted(*where, options, work)]
    return found


def sizes(args: argparse.Namespace) -> list[str]:
    """The options of sizes, as they are typed."""
    given = (("--short-side", args.short_side), ("--stride", args.stride))
    return [word for name, value in given if value is not None for word in (name, str(value))]


def banks(args: argparse.Namespace, options: dict[str, Any], work: Path) -> dict[Learnt, Path | None]:
    """The bank of each row; None for words alone."""
    learnt, _ = open_data(DataConfig(dataset=args.folder, split=args.learn), "label")
    names = [str(sample.source.relative) for sample in learnt.samples]
    everything = work / "everything"
    index(options, names, everything)
    found: dict[Learnt, Path | None] = {Learnt(0, ""): None} if 0 in args.images else {}

    def add(key: Learnt, chosen: list[str]) -> None:
        found[key] = out = work / f"bank{len(found)}"
        index(options, chosen, out, everything)

    ordered = orders(args, names, work)
    for count in sorted({*args.images} - {0}):
        if count >= len(names):  # whatever the order
            add(Learnt(count, "all"), names)
            continue
        for order, lists in ordered.items():
            for draw, one in enumerate(lists):
                add(Learnt(count, order, draw), one[:count])
    for name in args.lists:
        chosen = Path(name).read_text().split()
        add(Learnt(len(chosen), Path(name).stem), chosen)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--images", type=lambda t: [int(n) for n in t.split(",")], default=[3, 10, 20, 60])
    parser.add_argument("--order", type=lambda t: t.split(","), default=[RANDOM], help=", ".join(ORDERS))
    parser.add_argument("--draws", type=int, default=5, help="of the random order")
    parser.add_argument("--learn", default="train", help="split to learn from, or a file of names")
    parser.add_argument("--split", default="val", help="split to score on, or a file of names")
    parser.add_argument("--short-side", type=int)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--lists", nargs="*", default=[], help="files of names, each a bank more")
    parser.add_argument("--vote", action="store_true", help="vote in superpixels")
    args = parser.parse_args()
    if not {*args.order} <= {*ORDERS}:
        parser.error(f"--order: choose from {', '.join(ORDERS)}")
    common = {"model": args.model, "stride": args.stride, "precision": args.precision}
    options = {**common, "labels": args.folder, "short_side": args.short_side}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = banks(args, options, work)
        measure(args, common, found)


def measure(args: argparse.Namespace, common: dict[str, Any], found: dict[Learnt, Path | None]) -> None:
    """Label one split with each bank, and print what came out."""
    extra: dict[str, Any] = {"regions": "superpixels", "region_vote": True} if args.vote else {}
    base = EvalConfig(**common, dataset=args.folder, split=args.split, **extra)
    dataset, protocol = open_data(base, "score")
    predictors: dict[Learnt, Predictor] = {}
    fitting: dict[Learnt, float] = {}
    reader: Any = None
    backbone: Any = None
    for key, bank in sorted(
        found.items(), reverse=True
    ):  # words alone come last: they ask less of the reader
        size = {"memory": str(bank)} if bank else {"short_side": args.short_side}
        plan = plan_clip(EvalConfig(**common, **size, **extra), protocol)
        backbone = backbone or plan.backbone()
        start = time.process_time()
        predictors[key] = predictor = plan.predictor(backbone, dataset.classes)
        fitting[key] = time.process_time() - start
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
    for count, order in sorted({key[:2] for key in predictors}):
        own = sorted(key for key in predictors if key[:2] == (count, order))
        each = [100 * score(matrices[key]).miou for key in own]
        row = {
            "images": count,
            "order": order,
            "miou": round(float(np.mean(each)), 1),
            "each": [round(value, 1) for value in each],
            "fitting_cpu_seconds": round(float(np.mean([fitting[key] for key in own])), 1),
        }
        print(json.dumps(row), flush=True)
    images = len(dataset.samples)
    tower, rest = reader.seconds / images, sum(asking.values()) / len(asking) / images
    print(f"CPU seconds an image: tower {tower:.2f}, all else {rest:.2f}")


if __name__ == "__main__":
    main()
