"""What scoring costs beside labelling: `python -m benchmarks.evaluate --dataset samples/emoji-voc --model emoji`.

Times the parts of `clipseg eval` one after the other on one thread: decoding and resizing images, labelling them,
reading their ground truth, counting the confusion matrix. Prints seconds and the share of each.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from clipseg_cli.commands.evaluate import open_evaluation
from clipseg_cli.config import EvalConfig
from clipseg_cli.data.datasets import read_label
from clipseg_cli.data.images import read_image
from clipseg_cli.ops.metrics import confusion_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = ("images", "labelling", "ground truth", "metrics")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__)
    parser.add_argument("--dataset", default="samples/emoji-voc")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--pretrained", default=None, help="a tag, or a file")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = EvalConfig(
        dataset=options.dataset, model=options.model, pretrained=options.pretrained, device=options.device
    )
    seconds: dict[str, float] = defaultdict(float)
    with open_evaluation(config) as evaluation:
        predictor, data = evaluation.predictor, evaluation.dataset
        samples = data.samples[: options.images]
        list(predictor.predict([predictor.prepare(read_image(samples[0].source))]))  # warm up
        for sample in samples:
            with clock(seconds, "images"):
                image = predictor.prepare(read_image(sample.source))
            with clock(seconds, "labelling"):
                (result,) = predictor.predict([image])
            with clock(seconds, "ground truth"):
                truth = torch.from_numpy(read_label(sample, data, result.labels.shape)).to(predictor.device)
            with clock(seconds, "metrics"):
                labels = torch.from_numpy(result.labels).to(predictor.device)
                confusion_matrix(labels, truth, len(data.classes)).cpu()
        print(
            f"{len(samples)} images, {len(data.classes)} classes, {evaluation.model} on {evaluation.device}"
        )
    total = sum(seconds.values())
    for part in PARTS:
        print(f"{part:14s} {seconds[part]:8.3f} s {100 * seconds[part] / total:6.2f} %")


@contextmanager
def clock(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Add the time of the block to a part."""
    start = time.perf_counter()
    yield
    seconds[part] += time.perf_counter() - start


if __name__ == "__main__":
    main()
