"""Options of the commands over a whole data set, each once; what all commands share is in `options.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clipseg_cli.cli.options import METHOD, OUTPUT, PROBABILITY, WORDS, between, folder
from clipseg_cli.config import SegmentConfig
from clipseg_cli.errors import UsageError
from clipseg_cli.utils.registry import did_you_mean

DATA, CORRUPTION = "Data", "Corruption"


def _severity(text: str) -> tuple[int, ...]:
    """As in "3", "1,5" or "1..5"; which of them there are is the core's to say."""
    low, dots, high = str(text).partition("..")
    parts = [low, high] if dots else str(text).split(",")
    if not all(part.strip().isdigit() and len(part.strip()) < 4 for part in parts):
        raise UsageError(f"--severity {text} is no severity", hint="as in 3, in 1,5 or in 1..5")
    numbers = [int(part) for part in parts]
    return tuple(range(numbers[0], numbers[1] + 1)) if dots else tuple(dict.fromkeys(numbers))


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = str(text).partition("/")
    if not slash or not index.isdigit() or not count.isdigit() or not 1 <= int(index) <= int(count):
        raise UsageError(f"--shard {text} is no part of anything", hint="as in 1/4, 2/4, 3/4 and 4/4")
    return int(index), int(count)


def _keep_labels(value: str) -> str:
    if value not in (known := ("none", "seen")):
        raise UsageError(f"unknown --keep-labels '{value}'", hint=did_you_mean(value, known))
    return value


def _name(value: str | None) -> str | None:
    if value is not None and (not value.strip() or {"/", "\\"} & set(value) or not value.strip(".")):
        raise UsageError(
            f"--name '{value}' is not the name of a folder", hint="the place is chosen with --out"
        )
    return value


DatasetArg = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="Root of VOC, PASCAL Context, COCO-Stuff, ADE20K, Cityscapes, or a folder of images.",
        show_default=False,
    ),
]
MethodsOpt = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="Compare several methods on the same images: maskclip,sclip,naclip:kk, or all.",
        show_default=False,
        rich_help_panel=METHOD,
    ),
]
ModelsOpt = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help="With --methods, compare them on several models: emoji,ViT-B-16, or ViT-B-16=TAG.",
        show_default=False,
        rich_help_panel=METHOD,
    ),
]
DatasetOpt = Annotated[
    str,
    typer.Option(
        metavar="ROOT",
        help="Root of VOC, PASCAL Context, COCO-Stuff, ADE20K, Cityscapes, or a folder with images/ and masks/.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
BenchmarkOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which class list, where the data has several: voc21, voc20, context60, context59, coco-stuff, "
        "coco-object. Left out: the protocol's, or the first.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
SplitOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="train, val, ..., all, or a text file with a name a line.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
UnseenOpt = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Classes without ground truth, by comma; preset takes the published split.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
KeepLabelsOpt = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        callback=_keep_labels,
        help="none, or seen: keep the ground truth of all classes but --unseen, and fill only those.",
        rich_help_panel=DATA,
    ),
]
ShardOpt = Annotated[
    Any,  # a pair of numbers, which Typer would take for two arguments
    typer.Option(
        metavar="I/N",
        parser=_shard,
        help="Do part I of N; several processes or machines share the run folder. torchrun does it by itself.",
        rich_help_panel=DATA,
    ),
]
DataClassesOpt = Annotated[
    str,
    typer.Option(
        "--classes",
        "-c",
        metavar="LIST",
        help="For a plain folder of images: cat,couch|sofa or a text file.",
        show_default=False,
        rich_help_panel=WORDS,
    ),
]
DataBackgroundOpt = Annotated[
    str,
    typer.Option(
        metavar="WORDS",
        help="With --classes: words that together become the class background; none for a closed set.",
        show_default=SegmentConfig.background.replace(",", ", "),
        rich_help_panel=WORDS,
    ),
]
RunOpt = Annotated[
    str,
    typer.Option(
        "--run",
        metavar="DIR",
        help="A pseudo-label run: its model, method and data set. Left out, with --dataset too: the newest.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
AloneOpt = Annotated[
    bool,
    typer.Option("--alone", help="Score a student without the teacher beside it.", rich_help_panel=DATA),
]
PredictionsOpt = Annotated[
    str,
    typer.Option(
        metavar="DIR",
        help="Score label PNGs made by any tool, instead of a model.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
PartialOpt = Annotated[
    bool,
    typer.Option("--partial", help="Score the predictions there are.", rich_help_panel=DATA),
]
CorruptOpt = Annotated[
    list[str],
    typer.Option(
        metavar="TYPE|all",
        help="Also score corrupted images: gaussian_noise, shot_noise, impulse_noise, speckle_noise, gaussian_blur, "
        "defocus_blur, spatter, jpeg_compression, or all.",
        show_default=False,
        rich_help_panel=CORRUPTION,
    ),
]
SeverityOpt = Annotated[
    Any,  # several numbers, which Typer would take for several arguments
    typer.Option(
        metavar="1..5",
        parser=_severity,
        help="Of the corruptions: 3, or 1,5, or 1..5.",
        rich_help_panel=CORRUPTION,
    ),
]
SeedOpt = Annotated[
    int,
    typer.Option(metavar="N", help="Of their noise.", rich_help_panel=CORRUPTION),
]
ShowProtocolOpt = Annotated[
    bool,
    typer.Option(
        "--show-protocol",
        help="Print every setting of the protocol on the benchmark, with its fingerprint, and do nothing else.",
        rich_help_panel=METHOD,
    ),
]
MinConfidenceOpt = Annotated[
    float,
    typer.Option(
        metavar="P",
        callback=between(*PROBABILITY),
        help="Pixels less sure than P get 255, for ignore.",
        rich_help_panel=METHOD,
    ),
]
RunsOpt = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        parser=folder,
        help="Folder of the runs.",
        rich_help_panel=OUTPUT,
    ),
]
NameOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        callback=_name,
        help="The run's own folder in it. Left out: made of data, split and model.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
