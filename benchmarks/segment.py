"""How much of the bare tower's speed is left in `clipseg segment`, and what memory it takes.

    python -m benchmarks.segment --arch ViT-B-16 --images 12

Weights are random: only time and memory are measured. Speeds are medians over repeats that alternate between the
candidates, so that a slow minute of the machine hits all of them. Memory is the peak over the loaded model, each
in a process of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from benchmarks.plain import plain_loop
from benchmarks.turns import in_turns
from clipseg_cli.commands.segment import prepare_segmentation
from clipseg_cli.config import SegmentConfig
from clipseg_cli.data.images import read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clipseg_cli.commands.segment import SegmentRun
    from clipseg_cli.models.clip.dense_transformer import DenseTransformer

MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """A size of image and a number of classes."""

    height: int
    width: int
    classes: str

    @property
    def label(self) -> str:
        """For the table."""
        return f"{self.width}x{self.height}, {self.classes}"


SMALL = Case(512, 512, "voc21")
LARGE = Case(3000, 4000, "coco-stuff")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="ViT-B-16", help="an architecture of open_clip; weights are random")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=SegmentConfig.batch_size)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    parser.add_argument("--threads", type=int, default=None, help="of torch; default: all cores")
    parser.add_argument("--templates", default="single", help="more only make the start longer")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", choices=("pipeline", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--large", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.peak:
        print(json.dumps(peak_memory(options, LARGE if options.large else SMALL, options.peak)))
        return
    console = Console()
    speeds(options, console)
    if not options.no_memory:
        memories(options, console)


def speeds(options: argparse.Namespace, console: Console) -> None:
    """Images/s of the bare tower, the pipeline and the plain loop on the same images."""
    with tempfile.TemporaryDirectory() as folder:
        run, files = make_run(options, SMALL, Path(folder), options.images)
        crops = all_windows(run)
        candidates: dict[str, Callable[[], None]] = {
            "bare tower on the same windows": lambda: bare_tower(run, crops),
            "whole pipeline (files in, label maps and overlays out)": lambda: pipeline(run),
            "plain research loop (files in, label maps out)": lambda: plain_loop(
                run.predictor, files, Path(folder)
            ),
        }
        times = in_turns(candidates, options.repeats)
    rates = {name: len(files) / seconds for name, seconds in times.items()}
    console.print(rates_table(f"{options.arch}, {run.device}, {len(files)} images of {SMALL.label}", rates))


def rates_table(title: str, rates: Mapping[str, float]) -> Table:
    """Images/s of everything, the bare tower first, and what part of it they are."""
    table, tower = Table(title=title), next(iter(rates.values()))
    for column in ("", "images/s", "of the bare tower"):
        table.add_column(column, justify="right" if column else "left")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}", f"{rate / tower:.2f}")
    return table


def memories(options: argparse.Namespace, console: Console) -> None:
    """Peak memory over the loaded model, pipeline and plain loop."""
    table = Table(title=f"{options.arch}: peak memory over the loaded model, MiB")
    for column in ("", "pipeline", "plain research loop"):
        table.add_column(column, justify="right" if column else "left")
    for case in (SMALL, LARGE):
        row = [case.label]
        for kind in ("pipeline", "plain"):
            need = 2.2 * 4 * case.height * case.width * (171 if case is LARGE else 50)
            free = available_memory()
            if kind == "plain" and free < need:
                row.append(f"not run: needs about {need / MIB:,.0f}, {free / MIB:,.0f} are free")
                continue
            arguments = ["--arch", options.arch, "--device", options.device, "--peak", kind]
            arguments += ["--precision", options.precision]
            arguments += ["--batch-size", str(options.batch_size), "--templates", options.templates]
            arguments += ["--large"] if case is LARGE else []
            arguments += ["--threads", str(options.threads)] if options.threads else []
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.segment", *arguments],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            row.append(f"{json.loads(done.stdout.splitlines()[-1])['bytes'] / MIB:,.0f}")
        table.add_row(*row)
    console.print(table)


def peak_memory(options: argparse.Namespace, case: Case, kind: str) -> dict[str, Any]:
    """Peak over the loaded model while one image is labelled; a process of its own calls this."""
    with tempfile.TemporaryDirectory() as folder:
        run, files = make_run(options, case, Path(folder), 1)
        cuda = run.predictor.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        else:
            before = reset_peak()
        if kind == "pipeline":
            pipeline(run)
        else:
            plain_loop(run.predictor, files, Path(folder))
        after = torch.cuda.max_memory_allocated() if cuda else peak()
    return {"bytes": after - before}


def random_weights(arch: str, folder: Path) -> Path | None:
    """A file of weights that mean nothing; None for the bundled model, which has its own."""
    if arch == "emoji":
        return None
    import open_clip

    torch.manual_seed(0)
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that the weights are random
    path = folder / "random.safetensors"
    save_file(open_clip.create_model(arch).state_dict(), path)
    return path


def make_run(
    options: argparse.Namespace,
    case: Case,
    folder: Path,
    count: int,
    weights: Path | None = None,
) -> tuple[SegmentRun, list[Path]]:
    """Random weights on disk, random images on disk, and a run that is ready to go.

    Args:
        options: arch, device and precision; batch_size, templates and compile where they are there.
        case: of the images.
        folder: an empty one.
        count: of images.
        weights: of `random_weights`, where they are made already.
    """
    weights = weights or random_weights(options.arch, folder)
    files = write_images(folder / "images", case, count)
    config = SegmentConfig(
        images=(str(files[0].parent),),
        classes=case.classes,
        background="none",
        model=options.arch,
        method="maskclip",
        pretrained=str(weights) if weights else None,
        templates=getattr(options, "templates", "single"),
        out=folder / "out",
        device=options.device,
        precision=options.precision,
        batch_size=getattr(options, "batch_size", SegmentConfig.batch_size),
        compile=getattr(options, "compile", False),
    )
    return prepare_segmentation(config), files


def write_images(folder: Path, case: Case, count: int) -> list[Path]:
    """Random images on disk."""
    folder.mkdir()
    files = [folder / f"{i:04}.jpg" for i in range(count)]
    generator = np.random.default_rng(0)
    for file in files:
        # Smooth noise: white noise would make JPEG decoding unlike that of photos.
        small = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(file), cv2.resize(small, (case.width, case.height), interpolation=cv2.INTER_CUBIC))
    return files


def all_windows(run: SegmentRun) -> list[torch.Tensor]:
    """The batches that the pipeline will send through the tower, ready on the device."""
    predictor, crops = run.predictor, []
    for source in run.sources:
        prepared = predictor.prepare(read_image(source))
        pixels = torch.from_numpy(prepared.resized).to(predictor.device).permute(2, 0, 1).float()
        image = (pixels - predictor.mean) / predictor.std
        crops += [image[:, w.slices[0], w.slices[1]] for w in prepared.windows]
    return [
        torch.stack(crops[i : i + predictor.batches.size])
        for i in range(0, len(crops), predictor.batches.size)
    ]


@torch.inference_mode()
def bare_tower(run: SegmentRun, batches: list[torch.Tensor]) -> None:
    """open_clip's own forward of the image tower, nothing else."""
    predictor, reader = run.predictor, cast("DenseTransformer", run.predictor.reader)
    for batch in batches:
        with torch.autocast(batch.device.type, predictor.dtype, enabled=predictor.dtype != torch.float32):
            reader.tower.visual(batch)


def pipeline(run: SegmentRun) -> None:
    """All images from disk to disk."""
    for result in run:
        if result.error:
            raise result.error


def reset_peak() -> int:
    """Forget the peak so far; returns the bytes in use now, what loading left in the allocator given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak() -> int:
    """Bytes at the peak since `reset_peak`."""
    return status("VmHWM")


def status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def available_memory() -> int:
    """Bytes that can be had without swapping."""
    text = Path("/proc/meminfo").read_text()
    return int(next(x for x in text.splitlines() if x.startswith("MemAvailable")).split()[1]) * 1024


if __name__ == "__main__":
    main()
