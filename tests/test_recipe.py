"""The numbers of a training run: those of the paper, and what the user overrules."""

from __future__ import annotations

from itertools import pairwise

import pytest

from clipseg_cli.config import RECIPES, TrainConfig
from clipseg_cli.data.classes import benchmark_names
from clipseg_cli.errors import UsageError
from clipseg_cli.training.hyperparameters import find_recipe, resolve_hyperparameters

ZERO_SHOT = {"setting": "zero-shot", "unseen": "preset"}
BENCHMARKS = {
    "voc": ("voc20", "voc21"),
    "context": ("context59", "context60"),
    "coco-stuff": ("coco-stuff",),
}


def numbers(benchmark=None, ranks=1, **options):
    return resolve_hyperparameters(TrainConfig(**options), benchmark, ranks)


def refused(*args, **options):
    with pytest.raises(UsageError) as caught:
        numbers(*args, **options)
    return caught.value.message, caught.value.hint


# The paper


@pytest.mark.parametrize(
    ("preset", "iterations", "zero_shot"),
    [("voc", 2_000, 20_000), ("context", 4_000, 40_000), ("coco-stuff", 8_000, 80_000)],
)
@pytest.mark.parametrize("benchmark", [None, "coco-stuff", "ade20k"])
def test_iterations_of_the_paper_and_a_tenth_guided(preset, iterations, zero_shot, benchmark):
    free = numbers(benchmark, preset=preset)
    assert (free.iterations, free.guided, free.self_training_from) == (
        iterations,
        iterations // 10,
        iterations // 10,
    )
    with_truth = numbers(benchmark, preset=preset, **ZERO_SHOT)
    assert (with_truth.iterations, with_truth.guided) == (zero_shot, zero_shot // 10)
    assert with_truth.self_training_from == with_truth.guided


@pytest.mark.parametrize("preset", BENCHMARKS)
def test_the_optimiser_of_the_paper(preset):
    for options in ({}, ZERO_SHOT):
        n = numbers(preset=preset, **options)
        slow = preset == "context" and bool(options)
        assert (n.lr, n.weight_decay) == ((0.004, 1e-4) if slow else (0.01, 5e-4))
        assert (n.momentum, n.power, n.min_lr, n.batch_size) == (0.9, 0.9, 1e-4, 16)


@pytest.mark.parametrize("preset", BENCHMARKS)
def test_the_network_of_the_paper(preset):
    """ResNet-101 with a deep stem; DeepLabv3+ only for Context in the zero-shot setting."""
    free, with_truth = numbers(preset=preset), numbers(preset=preset, **ZERO_SHOT)
    assert free.backbone == with_truth.backbone == "resnet101c"
    assert free.head == "deeplabv2"
    assert with_truth.head == ("deeplabv3plus" if preset == "context" else "deeplabv2")


@pytest.mark.parametrize("preset", BENCHMARKS)
def test_the_crops_of_the_paper(preset):
    n = numbers(preset=preset)
    sizes = (520, 520, 480) if preset == "context" else (512, 2048, 512)
    assert (n.short_side, n.long_side, n.crop) == sizes
    assert (n.scale, n.max_share) == ((0.5, 2.0), 0.75)


@pytest.mark.parametrize(("preset", "benchmark"), [(p, b) for p, names in BENCHMARKS.items() for b in names])
def test_a_benchmark_of_the_paper_takes_its_own_preset(preset, benchmark):
    assert find_recipe(None, benchmark) is RECIPES[preset]
    assert numbers(benchmark).preset == preset
    assert numbers(benchmark, preset="quick").preset == "quick"


def test_other_data_takes_the_preset_of_voc():
    named = {name for names in BENCHMARKS.values() for name in names}
    others = [name for name in benchmark_names() if name not in named]
    assert others
    assert {numbers(name).preset for name in (None, *others)} == {"voc"}


def test_every_preset_says_where_its_numbers_come_from():
    assert set(RECIPES) == {*BENCHMARKS, "quick", "emoji"}
    for name, recipe in RECIPES.items():
        assert recipe.name == name and recipe.source


# What the user overrules


def test_options_win_over_the_preset():
    given = {
        "backbone": "resnet18",
        "head": "deeplabv3plus",
        "short_side": 0,
        "crop": 64,
        "iterations": 50,
        "lr": 0.5,
        "weight_decay": 0.0,
        "guided": 9,
        "self_training_from": 7,
        "validate_every": 3,
        "checkpoint_every": 4,
    }
    n = numbers("voc20", batch_size=6, grad_accumulation=3, **given)
    assert {name: getattr(n, name) for name in given} == given
    assert (n.batch_size, n.grad_accumulation) == (6, 3)


@pytest.mark.parametrize("iterations", [1, 2, 4, 5])
def test_the_shortest_run_is_guided_too(iterations):
    """A tenth of it is less than half an iteration; a student that only learns from itself learns nothing."""
    n = numbers(iterations=iterations)
    assert (n.guided, n.self_training_from) == (1, 1)


def test_none_guided_and_never_self_training():
    assert (numbers(iterations=50, guided=0).guided, numbers(iterations=50, guided=0).self_training_from) == (
        0,
        0,
    )
    everything = numbers(iterations=50, guided=90)
    assert (everything.guided, everything.self_training_from) == (50, 50)


@pytest.mark.parametrize(
    ("options", "which"),
    [
        ({"guided": 5, "self_training_from": 50}, "iterations 6 to 50"),
        ({"guided": 0, "self_training_from": 90}, "iterations 1 to 50"),
        ({"guided": 9, "self_training_from": 10}, "iteration 10:"),
    ],
)
def test_without_truth_somebody_labels_in_every_iteration(options, which):
    message, hint = refused(iterations=50, **options)
    assert which in message and f"--self-training-from {options['guided']}," in hint
    n = numbers(iterations=50, setting="zero-shot", **options)  # which has the truth of seen classes
    assert (n.guided, n.self_training_from) == (options["guided"], options["self_training_from"])


@pytest.mark.parametrize("options", [{"setting": "supervised"}, {"targets": "features", "teacher": True}])
def test_where_nobody_fills_labels_there_are_no_stages(options):
    n = numbers(iterations=50, guided=10, self_training_from=20, **options)
    assert (n.guided, n.self_training_from) == (0, 50)


def test_self_training_may_begin_while_the_teacher_labels():
    n = numbers(iterations=100, guided=30, self_training_from=20)
    assert (n.guided, n.self_training_from) == (30, 20)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (100, 50)),
        ({"guided": 30}, (30, 30)),  # no iteration in which nobody teaches
        ({"guided": 80}, (80, 50)),
        ({"self_training_from": 100}, (100, 100)),
        ({"guided": 0}, (0, 0)),
    ],
)
def test_quick_guides_to_the_end_and_lets_the_student_join(options, expected):
    n = numbers(iterations=100, preset="quick", **options)
    assert (n.guided, n.self_training_from) == expected


@pytest.mark.parametrize(
    ("batch", "ranks", "grad_accumulation", "divided", "works"),
    [
        (6, 4, 1, "4 processes", 8),
        (5, 1, 2, "1 x 2 parts", 6),
        (16, 3, 4, "3 x 4 parts", 24),
        (2, 8, 1, "8 processes", 8),
    ],
)
def test_a_batch_that_cannot_be_divided(batch, ranks, grad_accumulation, divided, works):
    said, hint = refused(ranks=ranks, batch_size=batch, grad_accumulation=grad_accumulation)
    assert said == f"a batch of {batch} cannot be divided into {divided}"
    assert hint == f"use --batch-size {works}"
    assert numbers(ranks=ranks, batch_size=works, grad_accumulation=grad_accumulation).batch_size == works


def test_an_unknown_preset_is_refused_with_the_nearest():
    assert refused(preset="coco-stuf") == ("unknown preset 'coco-stuf'", "did you mean 'coco-stuff'?")


# The learning rate


@pytest.mark.parametrize("preset", RECIPES)
@pytest.mark.parametrize("options", [{}, ZERO_SHOT])
def test_the_rate_falls_by_the_published_formula(preset, options):
    n = numbers(preset=preset, iterations=200, **options)
    rates = [n.lr_at(i) for i in range(200)]
    assert rates[0] == n.lr
    assert all(after < before for before, after in pairwise(rates))
    assert rates[-1] > n.min_lr
    for i in (1, 100, 199):
        assert rates[i] == pytest.approx((n.lr - n.min_lr) * (1 - i / 200) ** 0.9 + n.min_lr)


def test_a_rate_below_the_least_stays_where_it_is():
    n = numbers(iterations=10, lr=1e-5)
    assert [n.lr_at(i) for i in range(10)] == [1e-5] * 10


def test_one_iteration_has_the_first_rate():
    n = numbers(iterations=1)
    assert n.lr_at(0) == n.lr and n.validate_every == 1


def test_as_many_validations_as_the_preset_says():
    assert numbers(iterations=2_000).validate_every == 200
    assert numbers(iterations=7).validate_every == 1
    assert numbers(preset="quick").validate_every == 400
