"""`clipseg train --preset`: how a student is trained, as a named whole."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from clipseg_cli.config.constants import BUNDLED_BACKBONE, BUNDLED_MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping

Head = Literal["deeplabv2", "deeplabv3plus"]


@dataclass(frozen=True, kw_only=True)
class BaseHyperparameters:
    """What a recipe proposes and a run is trained with.

    Attributes:
        backbone: of the student, a ResNet of timm.
        head: "deeplabv2" or "deeplabv3plus".
        short_side, long_side: to which an image is resized, keeping its ratio, before the random scale: the
            largest size with a short side and a long side of at most this; a short side of 0 keeps the
            image's own size.
        crop: side of the square crop, in pixels.
        scale: range of the random scale.
        max_share: a crop is drawn again (up to ten times) while one class has more than this share of it.
        mix: probability that things of another image are laid over a crop; see `ops.augment.mix`.
        batch_size: crops in one iteration, over all processes.
        iterations: length of the training.
        lr, min_lr, power: the learning rate falls from the one to the other as (1 - t)**power.
        optimiser: "sgd", as published, or "adamw", which learns more in few iterations.
        centre: classify by the words less their mean; see `StudentShape`.
        learn_background: learn an embedding of the background in place of its words, as published; else its words
            stand for it, as for any class.
        momentum: of SGD.
        weight_decay: on all parameters.
    """

    backbone: str
    head: Head = "deeplabv2"
    short_side: int = 512
    long_side: int = 2048
    crop: int = 512
    scale: tuple[float, float] = (0.5, 2.0)
    max_share: float = 0.75
    mix: float = 0.0
    batch_size: int = 16
    iterations: int = 2000
    lr: float = 0.01
    min_lr: float = 1e-4
    power: float = 0.9
    optimiser: Literal["sgd", "adamw"] = "sgd"
    centre: bool = False
    learn_background: bool = True
    momentum: float = 0.9
    weight_decay: float = 5e-4


@dataclass(frozen=True, kw_only=True)
class Recipe(BaseHyperparameters):
    """How a student is trained: the numbers of a publication, or ours, under one name.

    Attributes:
        name: what `--preset` takes.
        with_truth: numbers that are others in the settings with ground truth.
        guided: share of the iterations in which the teacher labels.
        self_training_from: share of the iterations behind which self-training begins; None: behind those that are
            guided.
        validations: how often the student is scored on the way.
        bf16: compute in it on a CPU that does so natively, unless the user names a precision.
        models: for whose labels this is the default, whatever the benchmark.
        benchmarks: for which this is the default.
        source: where these numbers come from.
    """

    name: str
    with_truth: Mapping[str, Any] = field(default_factory=dict)
    guided: float = 0.1
    self_training_from: float | None = None
    validations: int = 10
    bf16: bool = False
    models: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    source: str = ""


_MASKCLIP_CONFIGS = "chongzhou96/MaskCLIP@245d31f, configs/maskclip_plus/"

VOC_RECIPE = Recipe(
    name="voc",
    backbone="resnet101c",
    with_truth={"iterations": 20_000},
    benchmarks=("voc20", "voc21"),
    source=_MASKCLIP_CONFIGS,
)

CONTEXT_RECIPE = Recipe(
    name="context",
    backbone="resnet101c",
    short_side=520,
    long_side=520,
    crop=480,
    iterations=4000,
    with_truth={"head": "deeplabv3plus", "iterations": 40_000, "lr": 0.004, "weight_decay": 1e-4},
    benchmarks=("context59", "context60"),
    source=_MASKCLIP_CONFIGS,
)

COCO_STUFF_RECIPE = Recipe(
    name="coco-stuff",
    backbone="resnet101c",
    iterations=8000,
    with_truth={"iterations": 80_000},
    benchmarks=("coco-stuff",),
    source=_MASKCLIP_CONFIGS,
)

QUICK_RECIPE = Recipe(
    name="quick",
    backbone="resnet10t",
    short_side=144,
    crop=128,
    scale=(0.7, 1.6),
    iterations=1200,
    lr=1e-3,
    min_lr=1e-5,
    optimiser="adamw",
    centre=True,
    weight_decay=0.02,
    guided=1.0,
    self_training_from=0.5,
    validations=3,
    source="this tool: small images, a small network, minutes on a CPU",
)

EMOJI_RECIPE = dataclasses.replace(
    QUICK_RECIPE,
    name="emoji",
    backbone=BUNDLED_BACKBONE,
    short_side=192,  # smaller images hide small things, and larger ones look unlike those of the first weights
    crop=160,
    batch_size=8,
    iterations=240,
    lr=1e-4,  # the first weights know words already, and a rate of 1e-3 loses them
    learn_background=False,  # those of the background too
    mix=0.5,
    validations=4,
    bf16=True,
    models=(BUNDLED_MODEL,),
    source="this tool: few images that the bundled model labelled, minutes on a CPU",
)

RECIPES = {r.name: r for r in (VOC_RECIPE, CONTEXT_RECIPE, COCO_STUFF_RECIPE, QUICK_RECIPE, EMOJI_RECIPE)}
