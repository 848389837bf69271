"""How much of a device one process keeps busy, and how much several that share it.

    python -m benchmarks.throughput --ranks 1,6 --batch-size 128 --workers 3

Weights are random; images are smooth noise of 500x375, which a ViT reads as six windows of 224 at stride 112, with the
words of voc21. Three rows have all pixels in memory; the plain loop is that of research code, from files to files; the
others are `clipseg pseudolabel`, one process or several by torchrun, in the middle half of the run, in which no
process is starting or ending.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from benchmarks.plain import plain_loop
from benchmarks.segment import (
    Case,
    all_windows,
    bare_tower,
    make_run,
    random_weights,
    rates_table,
    write_images,
)
from benchmarks.turns import in_turns
from clipseg_cli.data.images import read_image
from clipseg_cli.utils.device import pick_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clipseg_cli.commands.segment import SegmentRun
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.types import Segmentation

PHOTO = Case(375, 500, "voc21")
DRAWN = 64
"""Different images on disk; all others are copies of them."""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--arch", default="ViT-B-16", help="an architecture of open_clip; weights are random")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=3, help="of each process; as many write")
    parser.add_argument("--ranks", default="1", help="numbers of processes, as in 1,6,8")
    parser.add_argument("--images", type=int, default=400, help="of each process")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="clipseg's own rows with --compile")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder), Console())


def measure(options: argparse.Namespace, folder: Path, console: Console) -> None:
    """Print images/s of everything, and what part of the bare tower it is."""
    weights = random_weights(options.arch, folder)
    (folder / "memory").mkdir()
    run, files = make_run(options, PHOTO, folder / "memory", DRAWN, weights)
    rates = in_one_process(run, files, folder, options.repeats)
    ranks = [int(number) for number in options.ranks.split(",")]
    del run  # its part of the device is for the processes
    images = write_images(folder / "drawn", PHOTO, DRAWN)
    for number in ranks:
        name = f"files in, files out, {number} process{'es' if number > 1 else ''}"
        rates[name] = from_files(options, images, weights, folder / str(number), number)
    device = pick_device(options.device)
    console.print(rates_table(f"{options.arch}, {device}, {options.batch_size} windows at once", rates))


def in_one_process(run: SegmentRun, files: Sequence[Path], folder: Path, repeats: int) -> dict[str, float]:
    """Images/s of the tower as open_clip and as clipseg read it, of the loop without a file, and of the plain loop."""
    predictor, batches = run.predictor, all_windows(run)
    images = [predictor.prepare(read_image(source)) for source in run.sources]
    candidates = {
        "bare tower": partial(bare_tower, run, batches),
        "the tower as clipseg reads it": partial(_read, run, batches),
        "the loop, images in memory": partial(_label, run, images),
        "plain loop, files in, files out": partial(plain_loop, predictor, files, folder),
    }
    return {name: len(images) / seconds for name, seconds in in_turns(candidates, repeats).items()}


@torch.inference_mode()
def _read(run: SegmentRun, batches: Sequence[torch.Tensor]) -> None:
    for batch in batches:
        run.predictor.read(batch)


def _label(run: SegmentRun, images: Sequence[Prepared]) -> None:
    """In groups that fill a batch of windows, as the loop over files has them; each is waited for behind the next."""
    size = max(1, run.predictor.batches.size // len(images[0].windows))
    before: list[Callable[[], Segmentation]] = []
    for start in range(0, len(images), size):
        launched = list(run.predictor.launch(images[start : start + size]))
        for wait in before:
            wait()
        before = launched
    for wait in before:
        wait()


def from_files(
    options: argparse.Namespace, drawn: Sequence[Path], weights: Path | None, folder: Path, ranks: int
) -> float:
    """Images/s of some processes that share the work, in the middle half of it."""
    images = folder / "images"
    images.mkdir(parents=True)
    for number in range(options.images * ranks):
        shutil.copyfile(drawn[number % len(drawn)], images / f"{number:06}.jpg")
    command = ["-m", "clipseg_cli", "pseudolabel", str(images), "--model", options.arch]
    command += ["--classes", PHOTO.classes, "--templates", "single", "--method", "maskclip"]
    command += ["--background", "none", "--batch-size", str(options.batch_size)]
    command += ["--workers", str(options.workers), "--device", options.device]
    command += ["--precision", options.precision, "--out", str(folder), "--name", "run", "--quiet"]
    command += ["--pretrained", str(weights)] if weights else []
    command += ["--compile"] if options.compile else []
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    started = time.time()
    subprocess.run([sys.executable, *launcher, *command], check=True, stdout=subprocess.DEVNULL)
    written = sorted(path.stat().st_mtime for path in (folder / "run" / "labels").glob("*.png"))
    if len(written) != options.images * ranks:
        raise RuntimeError(f"{len(written)} labels of {options.images * ranks} images")
    if written[0] < started:
        raise RuntimeError("labels that are older than the run")
    first, last = len(written) // 4, len(written) * 3 // 4
    return (last - first) / (written[last] - written[first])


if __name__ == "__main__":
    main()
