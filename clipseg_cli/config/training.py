"""`clipseg train` and `clipseg export`: the student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipseg_cli.config.best import NO_SALIENCY
from clipseg_cli.config.data import DataConfig, PseudolabelConfig
from clipseg_cli.config.inference import InferenceConfig
from clipseg_cli.config.options import (
    LABELS,
    MAIN,
    OUTPUT,
    SCHEDULE,
    STUDENT,
    again,
    option,
)
from clipseg_cli.config.recipes import RECIPES, Head

AUTO = "auto"
"""Instead of first weights for a student: those that fit who labels and the backbone."""

Setting = Literal["annotation-free", "zero-shot", "supervised"]
MOST = 10_000_000


@dataclass(frozen=True)
class TrainConfig(DataConfig):
    """All that `clipseg train` needs to know; None asks the preset.

    The options of `DataConfig` are those of the teacher. With `labels` they are those of the run, whose class
    list, data set and teacher hold.
    """

    labels: str = option(
        "",
        "A run of clipseg pseudolabel. Default: the newest one.",
        panel=LABELS,
        metavar="RUN",
    )
    teacher: bool = option(
        False,
        "Let the frozen CLIP label each crop of --dataset on the fly, as the paper does.",
        panel=LABELS,
        flags=("--teacher",),
    )
    setting: Setting = option(
        "annotation-free",
        "annotation-free, zero-shot (ground truth of all classes but --unseen), or supervised.",
        panel=LABELS,
        metavar="NAME",
        choices=("annotation-free", "zero-shot", "supervised"),
    )
    guided: int | None = option(
        None,
        "Iterations in which CLIP's labels are learnt. Default: the preset's share, a tenth in the paper.",
        panel=LABELS,
        metavar="N",
        within=(0, MOST),
    )
    self_training_from: int | None = option(
        None,
        "Iteration from which the student labels for itself. Default: when --guided is over, or the preset's. Where "
        "the two overlap, each counts half.",
        panel=LABELS,
        metavar="N",
        within=(0, MOST),
    )
    targets: Literal["labels", "features"] = option(
        "labels",
        "labels, or features: distillation by the L1 distance to the teacher's (needs --teacher).",
        panel=LABELS,
        metavar="NAME",
        choices=("labels", "features"),
    )
    human_weight: float = option(
        4.0,
        "How much a pixel that a human has corrected or checked counts; any other counts 1. See clipseg import.",
        panel=LABELS,
        metavar="W",
        within=(0, 1000),
    )
    distill: float = option(
        1.0, "Weight of the feature distance.", panel=LABELS, metavar="W", within=(0, 1e6)
    )
    backbone: str | None = option(
        None,
        "A ResNet of timm: resnet18, resnet50, resnet101, deep stems resnet18c, resnet50c, resnet101c, resnet10t ... "
        "Default: the preset's.",
        panel=STUDENT,
        metavar="NAME",
    )
    head: Head | None = option(
        None,
        "deeplabv2 or deeplabv3plus. Default: the preset's.",
        panel=STUDENT,
        metavar="NAME",
        choices=("deeplabv2", "deeplabv3plus"),
    )
    init: str = option(
        AUTO,
        "First weights of the backbone. auto: emoji (in the package; they know drawings) for labels of the bundled "
        "model, else imagenet.",
        panel=STUDENT,
        metavar="auto|emoji|imagenet|none|FILE",
    )
    normalise: bool = option(
        False,
        "Classify features of unit length, times 100; the paper takes them as they are.",
        panel=STUDENT,
        flags=("--normalise",),
    )
    centre: bool | None = option(
        None,
        "Classify by the words less their mean, which tells no class from another. Default: the preset's.",
        panel=STUDENT,
        flags=("--centre/--no-centre",),
    )
    learn_background: bool | None = option(
        None,
        "Learn an embedding of the background in place of its words, as in the paper. Default: the preset's.",
        panel=STUDENT,
        flags=("--learn-background/--no-learn-background",),
    )
    preset: str | None = option(
        None,
        "The paper's numbers for voc, context or coco-stuff; quick, for little data and a CPU; or emoji, for labels "
        "of the bundled model. Default: that of the model that labels, else of the benchmark.",
        panel=MAIN,
        metavar="NAME",
        choices=tuple(RECIPES),
    )
    iterations: int | None = option(
        None, "Length of the training. Default: the preset's.", panel=MAIN, metavar="N", within=(1, MOST)
    )
    # Not windows, as elsewhere: those of a teacher are no option.
    batch_size: int | None = option(  # type: ignore[assignment]
        None,
        "Crops in one iteration, over all processes. Default: the preset's.",
        panel=SCHEDULE,
        metavar="N",
        within=(1, 65_536),
    )
    grad_accumulation: int = option(
        1,
        "Parts of a batch that go through the network one after the other, to save memory.",
        panel=SCHEDULE,
        metavar="N",
        within=(1, 65_536),
    )
    workers: int | None = again(  # type: ignore[assignment]
        InferenceConfig,
        "workers",
        None,
        help="Threads that read images and cut crops. Default: 2; beside a GPU up to 8, as there are cores.",
    )
    crop: int | None = option(
        None,
        "Side of the crops. Default: the preset's.",
        panel=SCHEDULE,
        metavar="PIXELS",
        within=(32, 8192),
    )
    short_side: int | None = again(
        InferenceConfig,
        "short_side",
        help="Resize the short side to this before the random scale; 0 keeps the size. Default: the preset's.",
        panel=SCHEDULE,
    )
    lr: float | None = option(
        None,
        "Learning rate at the start. Default: the preset's.",
        panel=SCHEDULE,
        metavar="RATE",
        within=(0, 1e6),
    )
    weight_decay: float | None = option(
        None,
        "Weight decay. Default: the preset's.",
        panel=SCHEDULE,
        metavar="W",
        within=(0, 1e6),
    )
    seed: int = option(
        0,
        "Random seed of weights, order and crops.",
        panel=SCHEDULE,
        metavar="N",
        within=(0, 2**31 - 1),
    )
    compile: bool = again(
        InferenceConfig, "compile", help="Let torch compile the student, and a CLIP that labels its crops."
    )
    validate_every: int | None = option(
        None,
        "Iterations between validations; 0: only at the end. Default: the preset's.",
        panel=OUTPUT,
        metavar="N",
        within=(0, MOST),
    )
    validation_images: int = option(
        0,
        "Images of the validation split that are scored on the way; 0 for all.",
        panel=OUTPUT,
        metavar="N",
        within=(0, MOST),
    )
    checkpoint_every: int | None = option(
        None,
        "Iterations between checkpoints. Default: with each validation and every five minutes.",
        panel=OUTPUT,
        metavar="N",
        within=(1, MOST),
    )
    resume: bool = option(
        False,
        "Go on with the run of that name, to the same result as without the interruption.",
        panel=OUTPUT,
        flags=("--resume",),
    )
    # Crops are not images of something on something: only if it is asked for.
    saliency: str = again(InferenceConfig, "saliency", NO_SALIENCY)
    out: Path = again(PseudolabelConfig, "out", Path("runs/train"))
    name: str | None = again(PseudolabelConfig, "name")


@dataclass(frozen=True)
class ExportConfig:
    """All that `clipseg export` needs to know.

    Attributes:
        student: a run of `clipseg train`, or one of its checkpoints.
        size: (H, W) of the image that the check uses; any other size works too.
    """

    student: str = ""
    onnx: Path = option(Path("student.onnx"), "The file to write.", metavar="FILE", read=Path)
    classes: str = again(
        InferenceConfig,
        "classes",
        help="Other words: cat,couch|sofa, a text file, or a benchmark. Default: those of its training.",
    )
    background: str = again(InferenceConfig, "background")
    size: tuple[int, int] = (256, 256)
