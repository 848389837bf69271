"""The bars that clipseg is held to, each a ratio of two things that are measured by turns in one process.

    python -m benchmarks.bars --json bars.json --plots samples/results

Weights are random and images smooth noise of 512x512: only time and memory are measured. On two cores without other
work `--images 6 --repeats 2` takes some six minutes without `--plots`; `--clock cpu` is for a machine with other work.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import clipseg_network, cost
from benchmarks.plain import plain_loop
from benchmarks.segment import SMALL, all_windows, bare_tower, make_run, pipeline, random_weights
from benchmarks.turns import CLOCKS, in_turns
from clipseg_cli.commands.segment import prepare_segmentation
from clipseg_cli.config import SegmentConfig
from clipseg_cli.config.recipes import QUICK_RECIPE
from clipseg_cli.data.classes import load_classes
from clipseg_cli.data.prompts import build_prompts, load_templates
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.clip.text_classifier import embed_prompts
from clipseg_cli.models.student.files import StudentCard, write_student
from clipseg_cli.models.student.network import Student, StudentShape
from clipseg_cli.models.weights.precision import hold_weights_in
from clipseg_cli.utils.device import pick_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipseg_cli.commands.segment import SegmentRun

STUDENT = QUICK_RECIPE
"""That of `clipseg train --preset quick`, which also says at what size it sees images."""


@dataclass(frozen=True)
class Bar:
    """How many times faster one thing is than another.

    Attributes:
        name: what is compared.
        seconds: of an image (or a prompt), of what is held to the bar.
        other: of the same by what it is compared with.
        least: the ratio that is wanted; 0 where none is.
    """

    name: str
    seconds: float
    other: float
    least: float = 0.0

    @property
    def ratio(self) -> float:
        """The other's time over its own."""
        return self.other / self.seconds


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bars", description=__doc__)
    parser.add_argument("--arch", default="ViT-B-16", help="an architecture of open_clip; weights are random")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--words", type=int, default=24, help="embedded in 80 sentences each, for the bar of the text"
    )
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument(
        "--plots", type=Path, help="folder of the two plots of costs; they take most of the time"
    )
    parser.add_argument(
        "--most", type=float, default=cost.MEGAPIXELS[-1], help="megapixels of the largest image"
    )
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(options.arch, Path(folder))
        bars, device = image_bars(options, weights, Path(folder))
        bars += text_bars(options, weights)
    table = Table(title=f"{options.arch} on {device}, {options.clock} time")
    for column in ("", "seconds", "other", "ratio", "wanted"):
        table.add_column(column, justify="right" if column else "left")
    for bar in bars:
        wanted = f">= {bar.least:g}" if bar.least else ""
        table.add_row(bar.name, f"{bar.seconds:.4g}", f"{bar.other:.4g}", f"{bar.ratio:.2f}", wanted)
    console.print(table)
    figures: dict[str, Any] = {
        "arch": options.arch,
        "device": device,
        "clock": options.clock,
        "bars": [{**asdict(bar), "ratio": bar.ratio} for bar in bars],
    }
    if options.plots:
        costs = cost.costs(argparse.Namespace(**{**vars(options), "precision": "auto", "images": 3}))
        cost.draw(costs, options.plots)
        figures["costs"] = cost.as_json(costs)
        for axis, points in costs.items():
            for x, one in points.items():
                console.print(f"{axis} {x:g}: {one.seconds:.3g} s, {one.mib:.0f} MiB")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def image_bars(options: argparse.Namespace, weights: Path | None, folder: Path) -> tuple[list[Bar], str]:
    """Everything that labels images, on the same images; and where it was measured."""
    runs, files = _runs(options, weights, folder)
    fp32, own, student, large = (runs[name] for name in ("fp32", "auto", "student", "large student"))
    device = own.predictor.device
    words = load_classes(SMALL.classes, background="none").names  # of each the first, as CLIPSeg takes one
    network = clipseg_network.build(device)
    tokens = own.backbone.tokenizer(list(words))[:, :16]  # type: ignore[attr-defined]
    crops = {name: all_windows(run) for name, run in (("fp32", fp32), ("auto", own))}
    few = files[:1]  # what takes ten seconds an image
    candidates = {
        "fp32": partial(pipeline, fp32),
        "auto": partial(pipeline, own),
        "tower fp32": partial(bare_tower, fp32, crops["fp32"]),
        "tower auto": partial(bare_tower, own, crops["auto"]),
        "loop fp32": partial(plain_loop, fp32.predictor, files, folder),
        "loop auto": partial(plain_loop, own.predictor, files, folder),
        "student": partial(pipeline, student),
        "large student": partial(pipeline, large),
        "CLIPSeg": partial(clipseg_network.label_files, network, tokens, few, folder),
    }
    seconds = {
        name: total / len(few if name == "CLIPSeg" else files)
        for name, total in in_turns(candidates, options.repeats, options.clock).items()
    }
    gpu = device.type != "cpu"
    chosen = own.device.rpartition(", ")[2]
    halves = pick_precision("auto", device) == torch.bfloat16
    rows = [
        ("clipseg, fp32, and the bare tower, fp32", "fp32", "tower fp32", 0.95),
        (f"clipseg, {chosen}, and the bare tower, {chosen}", "auto", "tower auto", 0.8 if gpu else 0.95),
        (f"clipseg, {chosen}, and clipseg, fp32", "auto", "fp32", 2.5 if halves and not gpu else 0.0),
        (f"clipseg, {chosen}, and the plain loop, {chosen}", "auto", "loop auto", 8.0 if gpu else 1.3),
        (f"clipseg, {chosen}, and the plain loop, fp32", "auto", "loop fp32", 0.0),
        (
            f"clipseg, {chosen}, and CLIPSeg of transformers, fp32, {len(words)} words",
            "auto",
            "CLIPSeg",
            20.0,
        ),
        (f"student at {STUDENT.short_side} pixels, {chosen}, and its teacher", "student", "auto", 3.0),
        (f"student at {SMALL.height} pixels, {chosen}, and its teacher", "large student", "auto", 0.0),
    ]
    return [Bar(name, seconds[one], seconds[two], least) for name, one, two, least in rows], own.device


def _runs(
    options: argparse.Namespace, weights: Path | None, folder: Path
) -> tuple[dict[str, SegmentRun], Sequence[Path]]:
    """The teacher in both precisions, and a student that sees images at two sizes, all over the same images."""
    runs: dict[str, SegmentRun] = {}
    files: Sequence[Path] = ()
    for precision in ("fp32", "auto"):
        own = argparse.Namespace(**{**vars(options), "precision": precision})
        (folder / precision).mkdir()
        runs[precision], files = make_run(own, SMALL, folder / precision, options.images, weights)
    teacher = runs["auto"]
    for name, short_side in (("student", STUDENT.short_side), ("large student", SMALL.height)):
        write_random_student(folder / name, teacher, short_side)
        config = SegmentConfig(
            images=(str(files[0].parent),),
            student=str(folder / name),
            out=folder / f"of-{name}",
            device=options.device,
        )
        runs[name] = prepare_segmentation(config)
    return runs, files


def write_random_student(folder: Path, teacher: SegmentRun, short_side: int) -> None:
    """A student of some classes with random weights, as `clipseg train` leaves it."""
    classes, backbone = teacher.classes, teacher.backbone
    embeds = teacher.predictor.text_embeds.cpu()
    shape = StudentShape(STUDENT.backbone, STUDENT.head, embeds.shape[1], centre=STUDENT.centre)
    card = StudentCard(
        shape=shape,
        classes=classes,
        templates=("a photo of a {}.",),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        short_side=short_side,
        long_side=STUDENT.long_side,
        teacher={key: getattr(backbone, key) for key in ("name", "pretrained", "fingerprint")},
        training={"setting": "annotation-free"},
    )
    write_student(folder, Student(shape, embeds, classes.query_to_class, None), card)


def text_bars(options: argparse.Namespace, weights: Path | None) -> list[Bar]:
    """Words in 80 sentences each: in the precision that is chosen here, and without padding."""
    device = torch.device("cpu") if options.device == "auto" and not torch.cuda.is_available() else None
    device = device or torch.device("cuda" if options.device == "auto" else options.device)
    dtype = pick_precision("auto", device)
    prompts = build_prompts([f"thing {i}" for i in range(options.words)], load_templates("imagenet"))
    pretrained = str(weights) if weights else None
    models = {}
    for name, held in (("fp32", torch.float32), ("auto", dtype)):
        models[name] = load_backbone(options.arch, pretrained, device)
        hold_weights_in(models[name].model.visual, held)
    own = models["auto"]
    tokens = own.tokenizer([prompt for word in prompts for prompt in word])

    def padded() -> None:
        """All 77 positions of every prompt, fp32, as `open_clip.build_zero_shot_classifier` reads them."""
        with torch.inference_mode():
            for batch in tokens[: len(tokens) // 4].split(256):
                models["fp32"].model.encode_text(batch.to(device))  # type: ignore[operator]

    seconds = in_turns(
        {
            "fp32": partial(_embed, models["fp32"], prompts, device),
            "auto": partial(_embed, own, prompts, device),
            "padded": padded,
        },
        options.repeats,
        options.clock,
    )
    each = {name: total / len(tokens) * (4 if name == "padded" else 1) for name, total in seconds.items()}
    chosen = str(dtype).removeprefix("torch.")
    return [
        Bar(f"a prompt by length, {chosen}, and by length, float32", each["auto"], each["fp32"]),
        Bar(f"a prompt by length, {chosen}, and of 77 positions, float32", each["auto"], each["padded"]),
    ]


def _embed(backbone: Any, prompts: Sequence[Sequence[str]], device: torch.device) -> None:
    embed_prompts(backbone.model, backbone.tokenizer, prompts, device=device)


if __name__ == "__main__":
    main()
