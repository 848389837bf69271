"""What each way to read CLIP costs: images/s relative to plain CLIP, and peak memory.

    python -m benchmarks.methods --arch ViT-B-16

Weights are random, those of a second network too: only time and memory are measured. Times are from pixels to
labels, medians over repeats that go round among all methods, so that a slow minute of the machine hits all of them.
Memory is the peak over the loaded models while one image is labelled, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import open_clip
import timm
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from benchmarks.segment import MIB, SMALL, peak, reset_peak, write_images
from benchmarks.turns import in_turns
from clipseg_cli.commands.segment import plan_segmentation
from clipseg_cli.config import SegmentConfig
from clipseg_cli.data.images import read_image
from clipseg_cli.inference.load import ModelPlan
from clipseg_cli.methods import METHODS, find_method
from clipseg_cli.types import ImageSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.inference.prepare import Prepared

PLAIN = "vanilla"
GUIDE = "dino-b8"


class Way(NamedTuple):
    """A method with options."""

    label: str
    options: Mapping[str, Any]


def ways(guide: str) -> list[Way]:
    """Every method, and every refinement on top of one."""
    methods = []
    for name in METHODS.names():
        method = METHODS.get(name)
        regions = "superpixels" if method.read_regions is not None else ""
        methods.append(
            Way(name, {"method": name, "guide": guide if method.guided else "", "regions": regions})
        )
    refinements: dict[str, dict[str, Any]] = {
        "--prompt-denoising 0.5": {"prompt_denoising": 0.5},
        "--key-smoothing 1.0": {"key_smoothing": 1.0},
        "--presence": {"presence": "evidence"},
        "--presence freecp": {"presence": "freecp"},
        "--pamr 10": {"pamr": 10},
        "--saliency clip": {"saliency": "clip"},
        "--region-vote": {"region_vote": True, "regions": "superpixels"},
    }
    on_top = [Way(f"maskclip {text}", {"method": "maskclip", **own}) for text, own in refinements.items()]
    return sorted(methods, key=lambda way: way.label != PLAIN) + on_top


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="ViT-B-16", help="an architecture of open_clip; weights are random")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--methods", default="", help="some of them, by comma; default: all, and refinements")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        known = {way.label: way for way in ways(f"{GUIDE}={folder / 'guide.safetensors'}")}
        if options.peak:
            predictors, prepared = prepare(options, folder, [known[options.peak]])
            print(json.dumps(peak_memory(predictors[options.peak], prepared[options.peak][:1])))
            return
        wanted = [name for name in options.methods.split(",") if name]
        chosen = [known[name] for name in wanted] or list(known.values())
        predictors, prepared = prepare(options, folder, chosen)
        seconds = measure(options, predictors, prepared)
    show(options, seconds, chosen)


def prepare(
    options: argparse.Namespace, folder: Path, chosen: list[Way]
) -> tuple[dict[str, Predictor], dict[str, list[Prepared]]]:
    """Random weights, one backbone for all, a predictor for each, and the images as it sees them."""
    torch.manual_seed(0)
    weights = folder / "random.safetensors"
    save_file(open_clip.create_model(options.arch, pretrained=None).state_dict(), weights)
    if any(way.options.get("guide") for way in chosen):
        save_file(
            timm.create_model("vit_base_patch8_224", num_classes=0).state_dict(), folder / "guide.safetensors"
        )
    files = write_images(folder / "images", SMALL, options.images)
    images = [read_image(ImageSource(file, PurePosixPath(file.stem))) for file in files]
    backbone, predictors, prepared = None, {}, {}
    for way in chosen:
        config = SegmentConfig(
            classes=SMALL.classes,
            model=options.arch,
            pretrained=str(weights),
            templates="single",
            device=options.device,
            **way.options,
        )
        plan, classes = plan_segmentation(config)
        assert isinstance(plan, ModelPlan)
        backbone = backbone or plan.backbone()
        predictors[way.label] = plan.predictor(backbone, classes)
        prepared[way.label] = [predictors[way.label].prepare(image) for image in images]
    return predictors, prepared


def measure(
    options: argparse.Namespace, predictors: dict[str, Predictor], prepared: dict[str, list[Prepared]]
) -> dict[str, float]:
    """Median seconds of an image."""

    def label(name: str) -> None:
        for _ in predictors[name].predict(prepared[name]):
            pass

    candidates = {name: partial(label, name) for name in predictors}
    return {name: spent / options.images for name, spent in in_turns(candidates, options.repeats).items()}


def peak_memory(predictor: Predictor, images: list[Prepared]) -> dict[str, int]:
    """Over the loaded models, while an image is labelled."""
    cuda = predictor.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = reset_peak()
    list(predictor.predict(images))
    return {"bytes": (torch.cuda.max_memory_allocated() if cuda else peak()) - before}


def show(options: argparse.Namespace, seconds: dict[str, float], chosen: list[Way]) -> None:
    """The table; each peak is measured now, in a process of its own."""
    title = f"{options.arch}, {SMALL.label}, random weights, {torch.get_num_threads()} threads"
    table = Table(title=title)
    for column in ("method", "images/s", "time, plain CLIP = 1", "peak, MiB", "paper"):
        table.add_column(column, justify="left" if column in ("method", "paper") else "right")
    plain = seconds.get(PLAIN)
    for way in chosen:
        spent = seconds[way.label]
        table.add_row(
            way.label,
            f"{1 / spent:.3g}",
            f"{spent / plain:.2f}" if plain else "-",
            "-" if options.no_memory else f"{_peak_of(options, way.label) / MIB:,.0f}",
            find_method(way.options["method"]).paper if way.label in METHODS.names() else "",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _peak_of(options: argparse.Namespace, label: str) -> int:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.methods", "--arch", options.arch),
            *("--device", options.device, "--peak", label),
        ],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return int(json.loads(done.stdout.splitlines()[-1])["bytes"])


if __name__ == "__main__":
    main()
