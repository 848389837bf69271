"""Options of training that exclude each other, or lack something."""

from __future__ import annotations

import pytest
import torch
from training_runs import (  # noqa: F401
    elsewhere_fixture,
    refused,
    task,
)
from training_trees import (  # noqa: F401
    SHEEP,
    TRAIN,
    UNSEEN_NAMES,
    free_run,
    session_tree,
    short_config,
    teacher_options,
    truth_path,
)

from clipseg_cli.errors import DatasetError, UsageError
from clipseg_cli.training.hyperparameters import resolve_hyperparameters
from clipseg_cli.training.setup import build_student

# Options that exclude each other


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (
            {"setting": "supervised", "labels": "RUN"},
            "--setting supervised learns from the ground truth and from no labels of a model",
            "leave out --labels and --teacher",
        ),
        (
            {"setting": "supervised", "teacher": True, "dataset": "DATA"},
            "--setting supervised learns from the ground truth and from no labels of a model",
            "leave out --labels and --teacher",
        ),
        (
            {"labels": "RUN", "teacher": True},
            "--labels and --teacher both say who labels",
            "--labels RUN reads what was written, --teacher labels each crop anew",
        ),
        (
            {"setting": "supervised", "targets": "features", "dataset": "TREE"},
            "--setting supervised learns from the ground truth, --targets features from a CLIP",
            "leave out one of them",
        ),
        (
            {"distill": 3.0, "labels": "RUN"},
            "--distill weighs the distance of features, and labels are learnt",
            "add --targets features, or leave out --distill",
        ),
        (
            {"targets": "features", "labels": "RUN"},
            "a run holds labels and no features",
            "add --teacher to --targets features",
        ),
        (
            {"unseen": "sheep", "labels": "RUN"},
            "--unseen says which classes have no ground truth, but none is used",
            "add --setting zero-shot",
        ),
        (
            {"teacher": True},
            "nothing says which images to learn from",
            "name a data set with --dataset ROOT",
        ),
        (
            {"labels": "RUN", "dataset": "DATA"},
            "--labels brings its own data set",
            "leave out --dataset or --labels",
        ),
    ],
)
def test_options_that_exclude_each_other(options, message, hint):
    """Said before anything is looked for: neither the run nor the data set is there."""
    assert refused(UsageError, **options) == (message, hint)


@pytest.mark.parametrize(
    ("options", "other"),
    [
        ({}, "--setting supervised to learn from the ground truth"),
        ({"guided": 0}, "--setting supervised to learn from the ground truth"),
        (
            {"setting": "zero-shot", "unseen": "sheep"},
            "--guided 0 to learn from seen classes and the student itself",
        ),
    ],
)
def test_a_data_set_alone_says_not_who_labels(tree, options, other):
    message, hint = refused(UsageError, dataset=str(tree), **options)
    assert message == "nothing says who labels the images"
    assert hint == f"add --teacher, or {other}"


def test_seen_classes_and_the_student_itself_need_no_teacher(tree):
    found = task(dataset=str(tree), setting="zero-shot", unseen="sheep", guided=0)
    assert found.unlabelled == (SHEEP,) and found.teacher is None


@pytest.mark.parametrize(("benchmark", "preset"), [("voc20", ", or --unseen preset"), ("voc21", "")])
def test_zero_shot_without_unseen_classes(tree, tiny_clip, benchmark, preset):
    options = teacher_options(tiny_clip, tree) | {"setting": "zero-shot", "benchmark": benchmark}
    message, hint = refused(UsageError, **options)
    assert message == "--setting zero-shot needs to know which classes are unseen"
    assert hint == f"name them, as in --unseen sofa,train{preset}"


def test_a_misspelt_unseen_class(tree, tiny_clip):
    options = teacher_options(tiny_clip, tree) | {"setting": "zero-shot", "unseen": "shep"}
    said = "unseen class 'shep' is not a class of voc21"
    assert refused(UsageError, **options) == (said, "did you mean 'sheep'?")


@pytest.mark.parametrize("setting", ["supervised", "zero-shot"])
def test_ground_truth_that_is_missing(elsewhere, tiny_clip, setting):
    for name in TRAIN:
        truth_path(elsewhere, name).unlink()
    options = teacher_options(tiny_clip, elsewhere) | {"unseen": UNSEEN_NAMES, "setting": setting}
    if setting == "supervised":
        options = {"dataset": str(elsewhere), "setting": setting}
    message, _ = refused(DatasetError, **options)
    assert message.startswith(f"{elsewhere} looks like PASCAL VOC 2012 without SegmentationClass/*.png")


def test_an_unknown_backbone_is_refused_with_the_nearest(label_run):
    config = short_config(backbone="resnet1O1c")
    numbers = resolve_hyperparameters(config, "voc21")
    with pytest.raises(UsageError, match="resnet1O1c") as caught:
        build_student(task(labels=str(label_run), backbone="resnet1O1c"), numbers, torch.eye(31))
    assert "'resnet101c'" in caught.value.hint
