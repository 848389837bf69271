"""From options to the numbers of one training run: the recipe, and what the user overruled of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import AUTO, BUNDLED_BACKBONE, BUNDLED_MODEL, RECIPES, VOC_RECIPE, BaseHyperparameters
from clipseg_cli.errors import RunError, UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

    from clipseg_cli.config import Recipe, TrainConfig

LEAST_CROPS = 2
"""In a forward pass of all ranks together, where a batch norm of the head "deeplabv3plus" sees one value a crop."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(BaseHyperparameters):
    """What a run is trained with; nothing is left open.

    Attributes:
        preset: name of the recipe.
        init: first weights of the backbone: "emoji", "imagenet", "none" or a file.
        grad_accumulation: parts of a batch that go through the network one after the other.
        guided: iterations in which the teacher labels; one at least, unless the user wants none.
        self_training_from: iteration with which self-training begins, from 0; where that is before the guided ones are
            over, both teach.
        validate_every: iterations; 0: only at the end.
        checkpoint_every: iterations; 0: with every validation, and by the clock.
    """

    preset: str
    init: str
    grad_accumulation: int
    guided: int
    self_training_from: int
    validate_every: int
    checkpoint_every: int

    def lr_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        left: float = (1 - iteration / self.iterations) ** self.power
        return (self.lr - self.min_lr) * left + self.min_lr


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
    if config.setting != "annotation-free":
        recipe = dataclasses.replace(recipe, **recipe.with_truth)
    names = [field.name for field in dataclasses.fields(BaseHyperparameters)]
    given = {name: getattr(config, name, None) for name in names}
    numbers: dict[str, Any] = {
        name: getattr(recipe, name) if given[name] is None else given[name] for name in names
    }
    numbers["min_lr"] = min(recipe.min_lr, numbers["lr"])
    _check_batch(numbers["batch_size"], config.grad_accumulation, ranks, numbers["head"])
    iterations: int = numbers["iterations"]
    guided = max(1, round(recipe.guided * iterations)) if config.guided is None else config.guided
    guided = min(guided, iterations)
    self_training_from = config.self_training_from
    if self_training_from is None:
        own = 1.0 if recipe.self_training_from is None else recipe.self_training_from
        self_training_from = min(guided, round(own * iterations))
    if config.setting == "supervised" or config.targets == "features":
        guided, self_training_from = 0, iterations
    elif config.setting == "annotation-free":
        _check_stages(guided, min(self_training_from, iterations))
    every = config.validate_every
    return Hyperparameters(
        **numbers,
        preset=recipe.name,
        init=_first_weights(numbers["backbone"], config.model) if config.init == AUTO else config.init,
        grad_accumulation=config.grad_accumulation,
        guided=guided,
        self_training_from=self_training_from,
        validate_every=-(-iterations // recipe.validations) if every is None else every,
        checkpoint_every=config.checkpoint_every or 0,
    )


def _check_stages(guided: int, self_training_from: int) -> None:
    """Without ground truth somebody must label in every iteration."""
    if guided < self_training_from:
        first, last = guided + 1, self_training_from
        raise UsageError(
            f"nobody labels the images in iteration{f' {first}' if first == last else f's {first} to {last}'}: "
            f"--guided ends before, --self-training-from begins behind",
            hint=f"use --self-training-from {guided}, or --guided {self_training_from}",
        )


def _check_batch(batch_size: int, grad_accumulation: int, ranks: int, head: str) -> None:
    """A batch must be divisible, and its parts large enough for the head."""
    if batch_size % (ranks * grad_accumulation):
        parts = f"{ranks} processes" if grad_accumulation == 1 else f"{ranks} x {grad_accumulation} parts"
        raise UsageError(
            f"a batch of {batch_size} cannot be divided into {parts}",
            hint=f"use --batch-size {-(-batch_size // (ranks * grad_accumulation)) * ranks * grad_accumulation}",
        )
    if head == "deeplabv3plus" and batch_size // grad_accumulation < LEAST_CROPS:
        raise UsageError(
            "the head deeplabv3plus cannot learn from one crop at a time",
            hint=f"use --batch-size {LEAST_CROPS * grad_accumulation} or more, or a smaller --grad-accumulation",
        )


def _first_weights(backbone: str, model: str) -> str:
    """What `--init auto` means: the weights in the package know drawings, those of ImageNet know photographs."""
    return BUNDLED_MODEL if (backbone, model) == (BUNDLED_BACKBONE, BUNDLED_MODEL) else "imagenet"


def out_of_memory(hparams: Hyperparameters, ranks: int, device: torch.device) -> RunError:
    """The error of a batch that does not fit, with parts of a batch and a crop to try."""
    n = hparams
    own = n.batch_size // ranks
    here, crop = own // n.grad_accumulation, max(32, n.crop * 3 // 4 // 32 * 32)
    least = -(-LEAST_CROPS // ranks) if n.head == "deeplabv3plus" else 1
    parts = next((k for k in range(n.grad_accumulation + 1, own // least + 1) if own % k == 0), None)
    ways = [f"--grad-accumulation {parts}, which keeps the batch"] if parts else []
    ways += [f"--crop {crop}"] if crop < n.crop else []
    return RunError(
        f"not enough memory for {here} crop{'s' if here > 1 else ''} of {n.crop} pixels at once on {device}",
        hint=f"try {', or '.join(ways) or 'a smaller --backbone'}, in a run of another --name",
    )
