"""Options of `clipseg train` alone, each once."""

from __future__ import annotations

from typing import Annotated

import typer

from clipseg_cli.cli.options import INFERENCE, OUTPUT, between
from clipseg_cli.config import RECIPES
from clipseg_cli.errors import UsageError
from clipseg_cli.utils.registry import did_you_mean

LABELS, STUDENT, SCHEDULE = "What is learnt", "Student", "Schedule"
_MOST = 10_000_000


def _one_of(option: str, *known: str) -> object:
    def check(value: str | None) -> str | None:
        if value is not None and value not in known:
            raise UsageError(f"unknown {option} '{value}'", hint=did_you_mean(value, known))
        return value

    return check


LabelsOpt = Annotated[
    str,
    typer.Option(
        metavar="RUN",
        help="A run of clipseg pseudolabel. Left out: the newest one.",
        show_default=False,
        rich_help_panel=LABELS,
    ),
]
TeacherOpt = Annotated[
    bool,
    typer.Option(
        "--teacher",
        help="Let the frozen CLIP label each crop of --dataset on the fly, as the paper does.",
        rich_help_panel=LABELS,
    ),
]
SettingOpt = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        callback=_one_of("--setting", "annotation-free", "zero-shot", "supervised"),
        help="annotation-free, zero-shot (ground truth of all classes but --unseen), or supervised.",
        rich_help_panel=LABELS,
    ),
]
TargetsOpt = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        callback=_one_of("--targets", "labels", "features"),
        help="labels, or features: distillation by the L1 distance to the teacher's (needs --teacher).",
        rich_help_panel=LABELS,
    ),
]
DistillOpt = Annotated[
    float,
    typer.Option(
        metavar="W",
        callback=between(0, 1e6),
        help="Weight of the feature distance.",
        rich_help_panel=LABELS,
    ),
]
GuidedOpt = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=between(0, _MOST),
        help="Iterations in which CLIP's labels are learnt. Left out: the preset's share, a tenth in the paper.",
        show_default=False,
        rich_help_panel=LABELS,
    ),
]
SelfFromOpt = Annotated[
    int | None,
    typer.Option(
        "--self-training-from",
        metavar="N",
        callback=between(0, _MOST),
        help="Iteration from which the student labels for itself. Left out: when --guided is over, or as the preset "
        "says. Where the two overlap, each counts half.",
        show_default=False,
        rich_help_panel=LABELS,
    ),
]

PresetOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        callback=_one_of("--preset", *RECIPES),
        help="The paper's numbers for voc, context or coco-stuff; quick, for little data and a CPU; or emoji, for "
        "labels of the bundled model. Left out: that of the model that labels, else of the benchmark.",
        show_default=False,
        rich_help_panel=SCHEDULE,
    ),
]
IterationsOpt = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=between(1, _MOST),
        help="Left out: the preset's.",
        show_default=False,
        rich_help_panel=SCHEDULE,
    ),
]
StepImagesOpt = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        callback=between(1, 65_536),
        help="Crops in one iteration, over all processes. Left out: the preset's.",
        show_default=False,
        rich_help_panel=SCHEDULE,
    ),
]
AccumulateOpt = Annotated[
    int,
    typer.Option(
        metavar="N",
        callback=between(1, 65_536),
        help="Parts of a batch that go through the network one after the other, to save memory.",
        rich_help_panel=SCHEDULE,
    ),
]
CropOpt = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        callback=between(32, 8192),
        help="Side of the crops. Left out: the preset's.",
        show_default=False,
        rich_help_panel=SCHEDULE,
    ),
]
BaseSideOpt = Annotated[
    int | None,
    typer.Option(
        "--short-side",
        metavar="PIXELS",
        callback=between(0, 16_384),
        help="Resize the short side to this before the random scale; 0 keeps the size. Left out: the preset's.",
        show_default=False,
        rich_help_panel=SCHEDULE,
    ),
]
RateOpt = Annotated[
    float | None,
    typer.Option(
        metavar="LR",
        callback=between(0, 1e6),
        help="Learning rate at the start. Left out: the preset's.",
        show_default=False,
        rich_help_panel=SCHEDULE,
    ),
]
WeightDecayOpt = Annotated[
    float | None,
    typer.Option(
        metavar="W",
        callback=between(0, 1e6),
        help="Left out: the preset's.",
        show_default=False,
        rich_help_panel=SCHEDULE,
    ),
]
TrainSeedOpt = Annotated[
    int,
    typer.Option(
        metavar="N",
        callback=between(0, 2**31 - 1),
        help="Of weights, order and crops.",
        rich_help_panel=SCHEDULE,
    ),
]

StudentBackboneOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A ResNet of timm: resnet18, resnet50, resnet101, deep stems resnet18c, resnet50c, resnet101c, "
        "resnet10t ... Left out: the preset's.",
        show_default=False,
        rich_help_panel=STUDENT,
    ),
]
HeadOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        callback=_one_of("--head", "deeplabv2", "deeplabv3plus"),
        help="deeplabv2 or deeplabv3plus. Left out: the preset's.",
        show_default=False,
        rich_help_panel=STUDENT,
    ),
]
InitOpt = Annotated[
    str,
    typer.Option(
        metavar="auto|emoji|imagenet|none|FILE",
        help="First weights of the backbone. auto: emoji (in the package; they know drawings) for labels of the "
        "bundled model, else imagenet.",
        rich_help_panel=STUDENT,
    ),
]
NormaliseOpt = Annotated[
    bool,
    typer.Option(
        "--normalise",
        help="Classify features of unit length, times 100; the paper takes them as they are.",
        rich_help_panel=STUDENT,
    ),
]
CentreOpt = Annotated[
    bool | None,
    typer.Option(
        "--centre/--no-centre",
        help="Classify by the words less their mean, which tells no class from another. Left out: the preset's.",
        show_default=False,
        rich_help_panel=STUDENT,
    ),
]
CompileOpt = Annotated[
    bool,
    typer.Option("--compile", help="Let torch compile the student.", rich_help_panel=INFERENCE),
]

ValidateEveryOpt = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=between(0, _MOST),
        help="Iterations between validations; 0: only at the end. Left out: the preset's.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
ValidationImagesOpt = Annotated[
    int,
    typer.Option(
        metavar="N",
        callback=between(0, _MOST),
        help="Images of the validation split that are scored on the way; 0 for all.",
        rich_help_panel=OUTPUT,
    ),
]
CheckpointEveryOpt = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=between(1, _MOST),
        help="Iterations between checkpoints. Left out: with each validation and every five minutes.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
ResumeOpt = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run of that name, to the same result as without the interruption.",
        rich_help_panel=OUTPUT,
    ),
]
