"""What is written beside a student: its card, and what the manifest of its run holds."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import TEACHING, ignore_value
from clipseg_cli.models.student.files import StudentCard
from clipseg_cli.outputs import class_table_rows
from clipseg_cli.runs.identity import dataset_identity
from clipseg_cli.runs.manifest import read_manifest
from clipseg_cli.runs.provenance import library_versions, versions
from clipseg_cli.training.setup import MEAN, STD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipseg_cli.config import TrainConfig
    from clipseg_cli.models.student.network import Student
    from clipseg_cli.training.hyperparameters import Numbers
    from clipseg_cli.training.task import Lesson

_ELSEWHERE = {"dataset", "labels", "device", "precision", "workers", "out", "name", "resume", "student"}
"""Options that change no weight, or that stand elsewhere in the manifest."""

_HOW_OFTEN = {"validate_every", "checkpoint_every"}
"""Whoever goes on with a run may look at it and keep it at other times."""


def describe_student(
    lesson: Lesson,
    numbers: Numbers,
    config: TrainConfig,
    student: Student,
    teacher: Mapping[str, Any],
) -> StudentCard:
    """What stands beside the weights of a student that begins.

    Args:
        lesson: what it learns.
        numbers: with what settings.
        config: with what options.
        student: its shape.
        teacher: name, pretrained and fingerprint of the CLIP that its words come from.
    """
    data = lesson.dataset
    return StudentCard(
        shape=student.shape,
        classes=lesson.classes,
        templates=lesson.templates,
        mean=MEAN,
        std=STD,
        short_side=numbers.short_side,
        long_side=numbers.long_side,
        teacher=dict(teacher),
        training={
            "setting": config.setting,
            "unseen": [data.classes.names[i] for i in lesson.unseen],
            "data": {
                "root": str(data.root.resolve()),
                "benchmark": data.benchmark,
                "split": data.split,
                "classes": "" if data.benchmark else config.classes,
                "background": "auto" if data.benchmark else config.background,
            },
            "labels": str(lesson.run) if lesson.run else None,
            **{key: getattr(config, key) for key in TEACHING},
            "method": config.method_name,
            "preset": numbers.preset,
            "init": numbers.init,
            "iterations": numbers.iterations,
        },
        versions=versions(),
    )


def training_identity(
    config: TrainConfig, lesson: Lesson, numbers: Numbers, teacher: Mapping[str, Any], computes: str
) -> dict[str, Any]:
    """All that the weights depend on; how many processes share the work changes rounding only."""
    data = lesson.dataset
    return {
        "kind": "train",
        "dataset": dataset_identity(data, lesson.samples),
        "labels": _labels_identity(lesson),
        "teacher": dict(teacher),
        "options": {k: v for k, v in dataclasses.asdict(config).items() if k not in _ELSEWHERE | _HOW_OFTEN},
        "numbers": {k: v for k, v in dataclasses.asdict(numbers).items() if k not in _HOW_OFTEN},
        "classes": class_table_rows(lesson.classes),
        "background": lesson.classes.background,
        "ignore": ignore_value(len(lesson.classes)),
        "unseen": [data.classes.names[i] for i in lesson.unseen],
        "computes": computes,
        "versions": library_versions(),
    }


def _labels_identity(lesson: Lesson) -> dict[str, Any] | None:
    """Which run is learnt from, by all that its labels depend on."""
    if lesson.run is None:
        return None
    manifest = read_manifest(lesson.run)
    return {"run": str(lesson.run.resolve()), "made_with": manifest and manifest.identity["options"]}
