"""Every picture of the README, made again: `python -m benchmarks.figures`, when the bundled weights have changed.

    clipseg pseudolabel samples/emoji-voc --model emoji --saliency found && clipseg train && clipseg eval
    python -m benchmarks.figures --student runs/train/emoji-voc-voc21-annotation-free-resnet10t

Everything is what the commands write themselves, but for the sheet of the ways to read one picture, which is drawn
here. The measured tables are those of `clipseg eval --methods all` and `python -m benchmarks.students`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipseg_cli import Segmentation, Segmenter
from clipseg_cli.outputs._canvas import tint
from clipseg_cli.outputs._colors import class_colors

RESULTS = Path("samples/results")
DATA = "samples/emoji-voc"


@dataclass(frozen=True)
class Sample:
    """A picture of `samples/` with the words of its overlay; background "" leaves the usual words."""

    file: str
    classes: str
    background: str = ""


SAMPLES = (
    Sample("night_heroes.png", "superhero,supervillain,joker", "night sky,moon,building,road"),
    Sample("cars.png", "blue car,red car,house,tree"),
    Sample("farm_large.jpg", "cow,sheep,horse,tractor,tree,house,sun"),
    Sample("beach.png", "boat,palm tree,person,dog,crab,basketball,aeroplane", "sky,water,sand"),
    Sample("still_life.png", "bottle,wine glass,bread,banana,apple,potted plant", "brick wall,wood"),
    Sample("street.png", "bus,bicycle,motorbike,tree", "sky,road,building,tiles"),
    Sample("living_room.png", "sofa,tv,potted plant,chair,cat,dog", "background,wall,wood"),
)


@dataclass(frozen=True)
class Way:
    """One reading of the picture on the sheet: a title, a line below it, and options of `Segmenter`."""

    title: str
    line: str
    options: dict[str, Any] = field(default_factory=dict)


WAYS = (
    Way("MaskCLIP", "values of the last attention", {"method": "maskclip"}),
    Way("CLIP-DIY, crops alone", "every crop named by itself", {"method": "clip_diy", "saliency": "none"}),
    Way("CLIP-DIY", "and a head that finds what stands out", {"method": "clip_diy"}),
    Way("clipseg's default", "the best reading of this model", {}),
)


def clipseg(*arguments: object) -> None:
    """Run a command; what it says goes to stderr.

    Raises:
        CalledProcessError: it failed.
    """
    print("clipseg", *arguments, file=sys.stderr)
    command = [sys.executable, "-m", "clipseg_cli", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def overlays(scratch: Path) -> None:
    """What `clipseg segment` draws over the samples."""
    for sample in SAMPLES:
        words = ["--background", sample.background] if sample.background else []
        out = scratch / Path(sample.file).stem  # one list of classes a folder
        clipseg(
            "segment",
            f"samples/{sample.file}",
            "--model",
            "emoji",
            "--classes",
            sample.classes,
            *words,
            "--out",
            out,
        )
        for path in out.glob("*_overlay.jpg"):
            shutil.copy(path, RESULTS / path.name)


def sheets(scratch: Path) -> None:
    """The contact sheet of pseudo labels, the confusion matrix and what the methods say."""
    clipseg("pseudolabel", DATA, "--model", "emoji", "--out", scratch, "--name", "labels")
    with Image.open(scratch / "labels" / "summary.png") as sheet:
        sheet.convert("RGB").save(RESULTS / "emoji-voc_summary.jpg", quality=85)
    clipseg("eval", "--dataset", DATA, "--model", "emoji", "--out", scratch / "score")
    clipseg("eval", "--dataset", DATA, "--model", "emoji", "--methods", "all", "--out", scratch / "all")
    for where, name, target in (
        ("score", "confusion.png", "emoji-voc_confusion.png"),
        ("all", "methods.png", "methods.png"),
    ):
        shutil.copy(next((scratch / where).rglob(name)), RESULTS / target)


def ways(image: Path, words: str, student: str) -> None:
    """One picture in several readings, side by side: `ways.png`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    readings = [
        (way.title, way.line, Segmenter.from_pretrained("emoji", **way.options).segment(image, words))
        for way in WAYS
    ]
    if student:
        network = Segmenter.from_run(student)
        readings.append(
            ("a student", "a small network, distilled without labels", network.segment(image, words))
        )
    first = readings[0][2]
    colours = class_colors(len(first.classes), first.classes.background)
    columns = 3
    rows = -(-(1 + len(readings)) // columns)
    height, width = first.labels.shape
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(10.8, rows * (3.6 * height / width + 0.55) + 0.5), squeeze=False
    )
    cells: list[tuple[str, str, Any]] = [("a picture and words", words, first.image.pixels)]
    cells += [(title, line, tinted(result, colours)) for title, line, result in readings]
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, line, pixels) in zip(axes.flat, cells, strict=False):
        axis.imshow(pixels)
        axis.set_title(title, fontsize=12, fontweight="bold", loc="left", pad=18)
        axis.text(0, 1.02, line, transform=axis.transAxes, fontsize=9, color="#555555")
    seen = sorted({int(i) for _, _, result in readings for i in np.unique(result.labels)})
    patches = [Patch(color=colours[i] / 255, label=first.classes.names[i]) for i in seen]
    figure.legend(handles=patches, loc="lower center", ncols=len(patches), frameon=False, fontsize=10)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(RESULTS / "ways.png", dpi=100)
    pyplot.close(figure)


def tinted(result: Segmentation, colours: Any) -> Any:
    """The picture under its labels, uint8 [H, W, 3]."""
    return tint(result.image.pixels, result.labels, colours, result.classes.background)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    parser.add_argument("--student", default="", help="a run of clipseg train, for the sheet of ways")
    parser.add_argument(
        "--image", type=Path, default=Path("samples/farm_large.jpg"), help="of the sheet of ways"
    )
    parser.add_argument("--words", default="cow,sheep,horse,tractor,tree,house,sun")
    parser.add_argument("--only", choices=("overlays", "sheets", "ways"), help="only some of them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.only in (None, "overlays"):
            overlays(Path(folder))
        if options.only in (None, "sheets"):
            sheets(Path(folder))
    if options.only in (None, "ways"):
        ways(options.image, options.words, options.student)


if __name__ == "__main__":
    main()
