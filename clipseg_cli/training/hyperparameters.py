"""From options to the numbers of one training run: the recipe, and what the user overruled of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from clipseg_cli.config import AUTO, BUNDLED_BACKBONE, BUNDLED_MODEL, RECIPES, VOC_RECIPE
from clipseg_cli.errors import RunError, UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

    from clipseg_cli.config import Head, Recipe, TrainConfig

T = TypeVar("T")

LEAST_CROPS = 2
"""In a forward pass of all ranks together, where a batch norm of the head "deeplabv3plus" sees one value a crop."""


@dataclass(frozen=True)
class Hyperparameters:
    """What a run is trained with; nothing is left open.

    Attributes:
        preset: name of the recipe.
        init: first weights of the backbone: "emoji", "imagenet", "none" or a file.
        batch_size: crops in one iteration, over all processes.
        accumulate: parts of a batch that go through the network one after the other.
        rate, min_rate, power: the learning rate falls from the one to the other.
        guided: iterations in which the teacher labels; one at least, unless the user wants none.
        self_from: iteration with which self-training begins, from 0; where that is before the guided ones are
            over, both teach.
        validate_every: iterations; 0: only at the end.
        checkpoint_every: iterations; 0: with every validation, and by the clock.
        The others are those of `Recipe`.
    """

    preset: str
    init: str
    backbone: str
    head: Head
    short_side: int
    long_side: int
    crop: int
    scale: tuple[float, float]
    max_share: float
    mix: float
    batch_size: int
    accumulate: int
    iterations: int
    rate: float
    min_rate: float
    power: float
    optimiser: Literal["sgd", "adamw"]
    centre: bool
    momentum: float
    weight_decay: float
    guided: int
    self_from: int
    validate_every: int
    checkpoint_every: int

    def rate_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        left: float = (1 - iteration / self.iterations) ** self.power
        return (self.rate - self.min_rate) * left + self.min_rate


def find_recipe(name: str | None, benchmark: str | None, model: str = "") -> Recipe:
    """The recipe of that name, else that of the model that labels, else that of the benchmark, else that of VOC.

    Raises:
        UsageError: there is no such recipe.
    """
    if name is None:
        own = [r for r in RECIPES.values() if model in r.models]
        own += [r for r in RECIPES.values() if benchmark in r.benchmarks]
        return next(iter(own), VOC_RECIPE)
    if name not in RECIPES:
        raise UsageError(f"unknown preset '{name}'", hint=did_you_mean(name, RECIPES))
    return RECIPES[name]


def resolve_hyperparameters(config: TrainConfig, benchmark: str | None, ranks: int = 1) -> Hyperparameters:
    """The numbers of a run.

    Args:
        config: the user's options; the model is the one that labels, or that labelled.
        benchmark: of the data set; it may have a recipe of its own.
        ranks: processes that share each batch.

    Raises:
        UsageError: an unknown recipe, or numbers that exclude each other.
    """
    recipe = find_recipe(config.preset, benchmark, config.model)
    with_truth = config.setting != "annotation-free"

    def first(option: T | None, own: T) -> T:
        return own if option is None else option

    iterations = first(config.iterations, recipe.zero_shot_iterations if with_truth else recipe.iterations)
    guided = min(first(config.guided, max(1, round(recipe.guided * iterations))), iterations)
    own = 1.0 if recipe.self_from is None else recipe.self_from
    self_from = first(config.self_from, min(guided, round(own * iterations)))
    if config.setting == "supervised" or config.targets == "features":
        guided, self_from = 0, iterations
    batch_size = first(config.step_images, recipe.batch_size)
    if batch_size % (ranks * config.accumulate):
        parts = f"{ranks} processes" if config.accumulate == 1 else f"{ranks} x {config.accumulate} parts"
        raise UsageError(
            f"a batch of {batch_size} cannot be divided into {parts}",
            hint=f"use --batch-size {-(-batch_size // (ranks * config.accumulate)) * ranks * config.accumulate}",
        )
    head = first(config.head, recipe.zero_shot_head if with_truth else recipe.head)
    if head == "deeplabv3plus" and batch_size // config.accumulate < LEAST_CROPS:
        raise UsageError(
            "the head deeplabv3plus cannot learn from one crop at a time",
            hint=f"use --batch-size {LEAST_CROPS * config.accumulate} or more, or a smaller --accumulate",
        )
    backbone = first(config.backbone, recipe.backbone)
    rate = first(config.rate, recipe.zero_shot_rate if with_truth else recipe.rate)
    return Hyperparameters(
        preset=recipe.name,
        init=_first_weights(backbone, config.model) if config.init == AUTO else config.init,
        backbone=backbone,
        head=head,
        short_side=first(config.short_side, recipe.short_side),
        long_side=recipe.long_side,
        crop=first(config.crop, recipe.crop),
        scale=recipe.scale,
        max_share=recipe.max_share,
        mix=recipe.mix,
        batch_size=batch_size,
        accumulate=config.accumulate,
        iterations=iterations,
        rate=rate,
        min_rate=min(recipe.min_rate, rate),
        power=recipe.power,
        optimiser=recipe.optimiser,
        centre=recipe.centre if config.centre is None else config.centre,
        momentum=recipe.momentum,
        weight_decay=first(
            config.weight_decay, recipe.zero_shot_weight_decay if with_truth else recipe.weight_decay
        ),
        guided=guided,
        self_from=self_from,
        validate_every=first(config.validate_every, -(-iterations // recipe.validations)),
        checkpoint_every=first(config.checkpoint_every, 0),
    )


def _first_weights(backbone: str, model: str) -> str:
    """What `--init auto` means: what ships for students of the bundled model knows drawings, ImageNet's photographs."""
    return BUNDLED_MODEL if (backbone, model) == (BUNDLED_BACKBONE, BUNDLED_MODEL) else "imagenet"


def out_of_memory(hparams: Hyperparameters, ranks: int, device: torch.device) -> RunError:
    """The error of a batch that does not fit, with parts of a batch and a crop to try."""
    n = hparams
    own = n.batch_size // ranks
    here, crop = own // n.accumulate, max(32, n.crop * 3 // 4 // 32 * 32)
    least = -(-LEAST_CROPS // ranks) if n.head == "deeplabv3plus" else 1
    parts = next((k for k in range(n.accumulate + 1, own // least + 1) if own % k == 0), None)
    ways = [f"--accumulate {parts}, which keeps the batch"] if parts else []
    ways += [f"--crop {crop}"] if crop < n.crop else []
    return RunError(
        f"not enough memory for {here} crop{'s' if here > 1 else ''} of {n.crop} pixels at once on {device}",
        hint=f"try {', or '.join(ways) or 'a smaller --backbone'}, in a run of another --name",
    )
