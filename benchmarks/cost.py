"""What an image costs with more words, and with more pixels: seconds and memory of `clipseg segment`.

    python -m benchmarks.cost --plots samples/results

Every case is a process of its own, so that its peak of memory is its own; weights are random.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.segment import MIB, Case, make_run, peak, pipeline, random_weights, reset_peak
from benchmarks.turns import CLOCKS, seconds_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WORDS = (1, 21, 171, 1000)
"""Words of a list, on images of 512x512."""

MEGAPIXELS = (0.2, 2.0, 12.0, 100.0)
"""Of images of 4:3, with 21 words."""


@dataclass(frozen=True)
class Cost:
    """Of one image.

    Attributes:
        seconds: the fastest of some images, files in and files out.
        mib: peak of the process over the loaded model.
    """

    seconds: float
    mib: float


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--arch", default="ViT-B-16", help="an architecture of open_clip; weights are random")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--images", type=int, default=3, help="of each case; the first does not count")
    parser.add_argument("--most", type=float, default=MEGAPIXELS[-1], help="megapixels of the largest image")
    parser.add_argument("--plots", type=Path, help="folder of cost_words.png and cost_megapixels.png")
    parser.add_argument(
        "--case", type=float, nargs=2, metavar=("MEGAPIXELS", "WORDS"), help=argparse.SUPPRESS
    )
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(asdict(measure(options, *options.case))))
        return
    found = costs(options)
    print(json.dumps(as_json(found)))
    if options.plots:
        draw(found, options.plots)


def costs(options: argparse.Namespace) -> dict[str, dict[float, Cost]]:
    """Costs by number of words, and by megapixels."""
    small = 512 * 512 / 1e6
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(options.arch, Path(folder))
        return {
            "words": {float(n): _in_own_process(options, small, n, weights) for n in WORDS},
            "megapixels": {
                size: _in_own_process(options, size, 21, weights)
                for size in MEGAPIXELS
                if size <= options.most
            },
        }


def _in_own_process(options: argparse.Namespace, megapixels: float, words: int, weights: Path | None) -> Cost:
    command = [sys.executable, "-m", "benchmarks.cost", "--case", str(megapixels), str(words)]
    for name in ("arch", "device", "precision", "clock", "images"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--weights", str(weights)] if weights else []
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def measure(options: argparse.Namespace, megapixels: float, words: float) -> Cost:
    """One case, in this process; on one thread by the clock of the processor, since threads that wait count too."""
    if options.clock == "cpu":
        torch.set_num_threads(1)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5) if words == 21 else round((megapixels * 1e6) ** 0.5)
    case = Case(height, round(megapixels * 1e6 / height), "")
    count = options.images if megapixels < 50 else 1
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "words.txt"
        names.write_text("".join(f"thing {i}\n" for i in range(int(words))), encoding="utf-8")
        case = Case(case.height, case.width, str(names))
        run, _ = make_run(options, case, Path(folder), count, options.weights)
        cuda = run.predictor.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if cuda else reset_peak()
        ones = [run.of([source], []) for source in run.sources]
        seconds = [seconds_of(partial(pipeline, one), options.clock) for one in ones]
        after = torch.cuda.max_memory_allocated() if cuda else peak()
        return Cost(min(seconds), (after - before) / MIB)


def as_json(found: Mapping[str, Mapping[float, Cost]]) -> dict[str, Any]:
    """What is written and printed."""
    return {axis: [{axis: x, **asdict(cost)} for x, cost in points.items()] for axis, points in found.items()}


def draw(found: Mapping[str, Mapping[float, Cost]], folder: Path) -> Sequence[Path]:
    """`cost_words.png` and `cost_megapixels.png`: seconds on the left, memory on the right.

    All axes are linear and begin at 0: what costs the same for each word or pixel is a straight line.
    """
    from matplotlib.figure import Figure

    paths = []
    for axis, points in found.items():
        figure = Figure(figsize=(5.2, 3.4))
        left = figure.subplots()
        right = left.twinx()
        x = list(points)
        left.plot(x, [cost.seconds for cost in points.values()], "o-", color="#1f77b4")
        right.plot(x, [cost.mib for cost in points.values()], "s--", color="#d62728")
        for each in (left, right):
            each.set_ylim(0, 1.1 * each.dataLim.ymax)  # a tenth of room, so that no point is cut off
        left.set_xlabel(axis)
        left.set_ylabel("seconds an image", color="#1f77b4")
        right.set_ylabel("MiB over the model", color="#d62728")
        left.grid(True, which="major", alpha=0.3)
        figure.tight_layout()
        paths.append(folder / f"cost_{axis}.png")
        figure.savefig(paths[-1], dpi=100)
    return paths


if __name__ == "__main__":
    main()
