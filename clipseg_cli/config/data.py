"""The commands over a whole data set: `clipseg pseudolabel` and `clipseg eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipseg_cli.config.inference import PROBABILITY, InferenceConfig
from clipseg_cli.config.options import (
    CORRUPTION,
    DATA,
    MAIN,
    METHOD,
    OUTPUT,
    WORDS,
    again,
    formats_option,
    option,
    out_option,
    run_name,
)
from clipseg_cli.errors import UsageError


def severities(text: str) -> tuple[int, ...]:
    """As in "3", "1,5" or "1..5"; which of them there are is the core's to say.

    Raises:
        UsageError: the text is none of these.
    """
    low, dots, high = str(text).partition("..")
    parts = [low, high] if dots else str(text).split(",")
    if not all(part.strip().isdigit() and len(part.strip()) < 4 for part in parts):
        raise UsageError(f"--severity {text} is no severity", hint="as in 3, in 1,5 or in 1..5")
    numbers = [int(part) for part in parts]
    return tuple(range(numbers[0], numbers[1] + 1)) if dots else tuple(dict.fromkeys(numbers))


def shard(text: str) -> tuple[int, int]:
    """As in "2/4".

    Raises:
        UsageError: the text is no part of anything.
    """
    index, slash, count = str(text).partition("/")
    if not slash or not index.isdigit() or not count.isdigit() or not 1 <= int(index) <= int(count):
        raise UsageError(f"--shard {text} is no part of anything", hint="as in 1/4, 2/4, 3/4 and 4/4")
    return int(index), int(count)


@dataclass(frozen=True)
class DataConfig(InferenceConfig):
    """What the commands over a whole data set have in common.

    A background of "auto" adds the usual words where `classes` names some things in a folder of images, and none
    where a data set brings its own classes.
    """

    dataset: str = option(
        "",
        "Root of VOC, PASCAL Context, COCO-Stuff, ADE20K, Cityscapes, or a folder with images/ and masks/.",
        panel=MAIN,
        metavar="ROOT",
        kind="folder",
    )
    benchmark: str | None = option(
        None,
        "Which class list, where the data has several: voc21, voc20, context60, context59, coco-stuff, coco-object. "
        "Default: the protocol's, or the first.",
        panel=DATA,
        metavar="NAME",
        kind="benchmark",
    )
    split: str | None = option(
        None,
        "train, val, ..., all, or a text file with a name on each line.",
        panel=DATA,
        metavar="NAME|FILE",
    )
    unseen: str = option(
        "",
        "Classes without ground truth, by comma; preset takes the published split.",
        panel=DATA,
        metavar="NAMES",
    )
    classes: str = again(
        InferenceConfig,
        "classes",
        help="For a plain folder of images: cat,couch|sofa or a text file.",
        panel=WORDS,
    )
    background: str = again(
        InferenceConfig,
        "background",
        "auto",
        help="With --classes: words that together become the class background; none for a closed set.",
        shown=InferenceConfig.background,
    )


@dataclass(frozen=True)
class PseudolabelConfig(DataConfig):
    """All that `clipseg pseudolabel` needs to know."""

    keep_labels: Literal["none", "seen"] = option(
        "none",
        "none, or seen: keep the ground truth of all classes but --unseen, and fill only those.",
        panel=DATA,
        metavar="WHICH",
        choices=("none", "seen"),
    )
    shard: tuple[int, int] = option(
        (1, 1),
        "Do part I of N; several processes or machines share the run folder. torchrun does it by itself.",
        panel=DATA,
        metavar="I/N",
        read=shard,
        shown="1/1",
    )
    engine: Literal["local", "ray"] = option(
        "local",
        "Who labels: local, this process; ray, a Ray cluster or this machine as one, shard by shard.",
        panel=DATA,
        metavar="NAME",
        choices=("local", "ray"),
    )
    shard_size: int = option(
        256,
        "Images of a shard with --engine ray, rounded up to whole batches; a tar is one shard.",
        panel=DATA,
        metavar="N",
        within=(1, 100_000),
    )
    actors: int | None = option(
        None,
        "Most workers of Ray, each with its own copy of the model. Default: one on each GPU, or machine.",
        panel=DATA,
        metavar="N",
        within=(1, 100_000),
    )
    min_confidence: float = option(
        0.0,
        "Mark pixels with confidence below P as ignore (255).",
        panel=METHOD,
        metavar="P",
        within=PROBABILITY,
    )
    keep_features: bool = option(
        False,
        "Keep what the network says of each image, rounded to float16, so that words added later do not need it again.",
        panel=METHOD,
        flags=("--keep-features",),
    )
    formats: str = formats_option(
        "",
        "Also write, into the run folder: coco, labelme, yolo-seg, ...; clipseg models --formats lists all.",
        OUTPUT,
    )
    out: Path = out_option(Path("runs/pseudolabel"), "Folder of the runs.")
    name: str | None = option(
        None,
        "The run's own folder in it. Default: made of data, split and model.",
        panel=OUTPUT,
        metavar="NAME",
        read=run_name,
    )

    @property
    def format_texts(self) -> tuple[str, ...]:
        """What `--formats` says."""
        return (self.formats,) if self.formats else ()


@dataclass(frozen=True)
class EvalConfig(DataConfig):
    """All that `clipseg eval` needs to know."""

    predictions: str = option(
        "",
        "Score label PNGs made by any tool, instead of a model.",
        panel=DATA,
        metavar="DIR",
    )
    partial: bool = option(False, "Score the predictions there are.", panel=DATA, flags=("--partial",))
    corrupt: tuple[str, ...] = option(
        (),
        "Also score corrupted images: gaussian_noise, shot_noise, impulse_noise, speckle_noise, gaussian_blur, "
        "defocus_blur, spatter, jpeg_compression, or all.",
        panel=CORRUPTION,
        metavar="TYPE|all",
        shown="",
    )
    severity: tuple[int, ...] = option(
        (1, 2, 3, 4, 5),
        "Severities of the corruptions: 3, or 1,5, or 1..5.",
        panel=CORRUPTION,
        metavar="1..5",
        read=severities,
        shown="1..5",
    )
    seed: int = option(0, "Random seed for the corruption noise.", panel=CORRUPTION, metavar="N")
    out: Path = again(PseudolabelConfig, "out", Path("runs/eval"))
    name: str | None = again(PseudolabelConfig, "name")


@dataclass(frozen=True)
class IndexConfig(DataConfig):
    """All that `clipseg index` needs to know."""

    labels: str = option(
        "",
        "Labelled images to learn from: a run of clipseg pseudolabel (labels that were corrected), a data set "
        "with ground truth, or, with FOLDER, a folder of label PNGs of the same names.",
        panel=MAIN,
        metavar="RUN|FOLDER",
    )
    out: Path = again(PseudolabelConfig, "out", Path("bank"), help="The bank to write.", metavar="BANK")
    suggest: int | None = option(
        None,
        "Write no bank: name the N images of FOLDER that show most of what is in it, to be corrected next.",
        panel=MAIN,
        metavar="N",
        within=(1, 100_000),
    )
