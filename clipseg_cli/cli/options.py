"""Options that commands share, each once: name, range, help. Its default stands in `config/`.

Those of the commands over a whole data set are in `data_options.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from clipseg_cli.config import OF_A_CLIP, PROTOCOLS, SegmentConfig
from clipseg_cli.errors import UsageError
from clipseg_cli.utils.registry import did_you_mean

Config = TypeVar("Config")
Number = TypeVar("Number", float, int, "int | None", "float | None")

PROBABILITY = (0, 1)
_SIDE = 16_384  # pixels
WORDS, MODEL, METHOD = "Words", "Model", "Method"
INFERENCE, OUTPUT = "Inference", "Output"


def config_from(kind: type[Config], options: Mapping[str, Any], **others: Any) -> Config:
    """A config whose fields are the options of the same names, as in `ctx.params`."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in options.items() if name in names} | others)


def given_options(ctx: typer.Context) -> dict[str, Any]:
    """The options that the user wrote, and not those that have their defaults."""
    return {name: value for name, value in ctx.params.items() if _is_given(ctx, name)}


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def check_student(given: Mapping[str, Any]) -> None:
    """Refuse --student without a value, and beside it what is about a CLIP, even where it says the default.

    Args:
        given: the options that the user wrote.

    Raises:
        UsageError: the message names the option.
    """
    if "student" not in given:
        return
    if not given["student"].strip():  # as `--student "$UNSET"` gives it
        raise UsageError("--student is empty", hint="name a run of clipseg train, such as runs/train/NAME")
    for name in OF_A_CLIP:
        if name in given:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} is about a CLIP; a student is used as it was trained",
                hint=f"leave out --student or {option}",
            )


def between(low: float, high: float) -> Callable[[Number], Number]:
    """A check that a number lies in [low, high], or is left out."""

    # Typer's min and max let `nan` through, and print a range that squeezes the help on a narrow terminal.
    def check(value: Number) -> Number:
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(f"{value} is not between {low:g} and {high:g}.")
        return value

    return check


def _protocol(value: str) -> str:
    if value not in PROTOCOLS:
        raise UsageError(f"unknown protocol '{value}'", hint=did_you_mean(value, PROTOCOLS))
    return value


def folder(text: str) -> Path:
    """The folder that an option names."""
    if not str(text).strip():  # as `--out "$UNSET"` gives it; Path would make it the current folder
        raise UsageError("--out is empty", hint="name a folder; . is the current one")
    return Path(text)


def _precision(value: str) -> str:
    # The names are those of `utils.device.PRECISIONS`, which brings torch.
    if value not in (known := ("auto", "fp32", "bf16")):
        raise UsageError(f"unknown precision '{value}'", hint=did_you_mean(value, known))
    return value


ImagesArg = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGES",
        help="Files, folders, globs; - reads one image from stdin and writes its label PNG to stdout.",
        show_default=False,
    ),
]

ClassesOpt = Annotated[
    str,
    typer.Option(
        "--classes",
        "-c",
        metavar="LIST",
        help="cat,couch|sofa (a bar joins synonyms), a text file, or a benchmark such as voc21. A student can do "
        "without: it has its own.",
        show_default=False,
        rich_help_panel=WORDS,
    ),
]
BackgroundOpt = Annotated[
    str,
    typer.Option(
        metavar="WORDS",
        show_default=SegmentConfig.background.replace(",", ", "),
        help="Words that together become the class background; none for a closed set.",
        rich_help_panel=WORDS,
    ),
]
BackgroundThresholdOpt = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        callback=between(*PROBABILITY),
        help="Pixels whose best class is less probable than P become background. Left out: the protocol's.",
        show_default=False,
        rich_help_panel=WORDS,
    ),
]
TemplatesOpt = Annotated[
    str | None,
    typer.Option(
        metavar="SET",
        help="Sentences around each word: imagenet (80), maskclip (85), single, clip-diy, name, or a text file. "
        "Left out: the protocol's, imagenet by default.",
        show_default=False,
        rich_help_panel=WORDS,
    ),
]

ModelOpt = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="An open_clip architecture, or emoji: the model in this package. See clipseg models.",
        rich_help_panel=MODEL,
    ),
]
PretrainedOpt = Annotated[
    str | None,
    typer.Option(
        metavar="TAG|FILE",
        help="Weights: a tag of open_clip, or a file. Left out: openai, or the first tag.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]

StudentOpt = Annotated[
    str,
    typer.Option(
        "--student",
        metavar="RUN",
        help="Instead of a CLIP a network of your own: a run of clipseg train, RUN/best, or a checkpoint.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]

MethodOpt = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="How dense features are read; clipseg models --methods lists all. auto is the best that asks no second "
        "network: sc_clip for the ViTs of CLIP, vanilla for emoji, maskclip for other towers.",
        rich_help_panel=METHOD,
    ),
]
ProtocolOpt = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        callback=_protocol,
        help="default, or the exact settings of a publication: sclip, sclip-paper, sc-clip, maskclip, clip-diy.",
        rich_help_panel=METHOD,
    ),
]
GuideOpt = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Another network for methods that ask for one (proxyclip, dinoiser): dino, dino-b8, dinov2, a ViT of "
        "timm, NAME=FILE, or a head of CLIP-DINOiser.",
        show_default=False,
        rich_help_panel=METHOD,
    ),
]
SaliencyOpt = Annotated[
    str,
    typer.Option(
        metavar="KIND",
        help="What decides where the background is: none, clip (cuts of its own patches), dino (what DINO attends to), "
        "found (the model's own head of FOUND, else DINO and FOUND's), dino=FILE, found=HEAD,DINO (files), or a folder "
        "of maps. auto is found for clip_diy with a model that has a head (emoji), else none.",
        rich_help_panel=METHOD,
    ),
]
PresenceOpt = Annotated[
    bool,
    typer.Option(
        "--presence",
        help="Drop classes that are nowhere in the picture: no coherent part of it, and no window as a whole.",
        rich_help_panel=METHOD,
    ),
]
PamrOpt = Annotated[
    int,
    typer.Option(
        metavar="STEPS",
        callback=between(0, 100),
        help="Let scores flow between neighbouring pixels that look alike (NACLIP: 10; 0 is off).",
        rich_help_panel=METHOD,
    ),
]
PromptDenoisingOpt = Annotated[
    float,
    typer.Option(
        metavar="T",
        callback=between(*PROBABILITY),
        help="Drop classes that are nowhere more probable than T (paper: 0.5; 0 is off).",
        rich_help_panel=METHOD,
    ),
]
KeySmoothingOpt = Annotated[
    float,
    typer.Option(
        metavar="T",
        callback=between(*PROBABILITY),
        help="Smooth patches less sure than T over similar keys (paper: 1.0; 0 is off).",
        rich_help_panel=METHOD,
    ),
]

ShortSideOpt = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=between(0, _SIDE),
        help="Resize the short side to this; 0 keeps the size. Left out: what the model asks for.",
        show_default=False,
        rich_help_panel=INFERENCE,
    ),
]
WindowOpt = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=between(0, _SIDE),
        help="Side of the sliding window; 0 for the whole image at once. Left out: the model's own.",
        show_default=False,
        rich_help_panel=INFERENCE,
    ),
]
StrideOpt = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=between(1, _SIDE),
        help="Step between windows. Left out: half a window.",
        show_default=False,
        rich_help_panel=INFERENCE,
    ),
]
DeviceOpt = Annotated[
    str,
    typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=INFERENCE),
]
PrecisionOpt = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        callback=_precision,
        help="auto (bf16 on CUDA, else fp32), fp32 or bf16.",
        rich_help_panel=INFERENCE,
    ),
]
BatchSizeOpt = Annotated[
    int,
    typer.Option(
        metavar="N",
        callback=between(1, 4096),
        help="Windows in one forward pass.",
        rich_help_panel=INFERENCE,
    ),
]
MaxMegapixelsOpt = Annotated[
    float,
    typer.Option(
        metavar="N",
        callback=between(0.001, 100_000),
        help="Refuse larger images, before they are decoded.",
        rich_help_panel=INFERENCE,
    ),
]
WorkersOpt = Annotated[
    int,
    typer.Option(
        metavar="N",
        callback=between(1, 64),
        help="Threads that decode and write while the model computes.",
        rich_help_panel=INFERENCE,
    ),
]

OutOpt = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        parser=folder,
        help="Folder for everything written.",
        rich_help_panel=OUTPUT,
    ),
]
HeatmapsOpt = Annotated[
    bool,
    typer.Option(
        "--heatmaps", help="Also write a confidence picture for each class.", rich_help_panel=OUTPUT
    ),
]
JsonOpt = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document instead of tables.", rich_help_panel=OUTPUT),
]
QuietOpt = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print only errors, and the JSON if asked.", rich_help_panel=OUTPUT),
]
VerboseOpt = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Say more: a line for each image, every file.", rich_help_panel=OUTPUT
    ),
]
