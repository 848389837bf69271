"""What a run begins with: student and optimiser, the network as all processes share it, and what is written of it."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clipseg_cli.config import TEACHING, ignore_value
from clipseg_cli.models.student.backbones import initialise
from clipseg_cli.models.student.files import StudentCard
from clipseg_cli.models.student.network import Student, StudentShape
from clipseg_cli.models.student.synced_norm import synchronise
from clipseg_cli.outputs import class_table_rows
from clipseg_cli.runs.identity import dataset_identity
from clipseg_cli.runs.manifest import read_manifest
from clipseg_cli.runs.provenance import library_versions, versions
from clipseg_cli.runs.records import file_fingerprint
from clipseg_cli.runs.summary import label_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from clipseg_cli.training.hyperparameters import Hyperparameters
    from clipseg_cli.training.task import TrainingTask
    from clipseg_cli.utils.distributed import Share

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, on which backbones are pretrained."""

_ELSEWHERE = {
    "human_weight",
    "dataset",
    "labels",
    "device",
    "precision",
    "workers",
    "out",
    "name",
    "resume",
    "student",
}
"""Options that change no weight, or that stand elsewhere in the manifest."""

_HOW_OFTEN = {"validate_every", "checkpoint_every"}
"""Whoever goes on with a run may look at it and keep it at other times."""


def build_student(task: TrainingTask, hparams: Hyperparameters, text_embeds: Tensor) -> tuple[Student, str]:
    """A student with its first weights, on the CPU, and a sentence on where they came from.

    Args:
        task: what it learns.
        hparams: with backbone, its first weights, and head.
        text_embeds: [Q, D], unit rows.

    Raises:
        ClipsegError: an unknown backbone, or weights that cannot be had or do not fit.
    """
    n, config, classes = hparams, task.config, task.classes
    shape = StudentShape(n.backbone, n.head, text_embeds.shape[1], config.normalise, n.centre)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        learnt = classes.background if n.learn_background else None
        student = Student(shape, text_embeds.cpu(), classes.query_to_class, learnt)
    return student, initialise(student.backbone, n.backbone, n.init, student.head)


def build_optimiser(student: Student, hparams: Hyperparameters) -> torch.optim.Optimizer:
    """The optimiser over all parameters, normalisation and background too, as published.

    It changes all weights in one pass over the memory; what it remembers has the layout of the weights for that.
    """
    parameters, n = student.parameters(), hparams
    if n.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=n.lr, weight_decay=n.weight_decay, fused=True)
    return torch.optim.SGD(parameters, lr=n.lr, momentum=n.momentum, weight_decay=n.weight_decay, fused=True)


def share_network(student: Student, device: torch.device, share: Share, *, compiled: bool) -> nn.Module:
    """The student as it is called in training: its gradients, and its batch statistics, are those of all ranks."""
    network: Any = torch.compile(student) if compiled else student
    if not share.launched:
        return cast("nn.Module", network)
    # Statistics are those of all ranks already. PyTorch 2.14 has another name for that and warns of the former.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {buffers: False}
    return DistributedDataParallel(
        network,
        device_ids=[device.index or 0] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **options,
    )


def place(student: Student, device: torch.device, share: Share) -> Student:
    """The student on its device, channels last, with batch normalisation over all ranks where there are several."""
    student.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if share.launched:
        synchronise(student)
    return student


def describe_student(
    task: TrainingTask, hparams: Hyperparameters, student: Student, teacher: Mapping[str, Any]
) -> StudentCard:
    """What stands beside the weights of a student that begins.

    Args:
        task: what it learns.
        hparams: with what settings.
        student: its shape.
        teacher: name, pretrained and fingerprint of the CLIP that its words come from.
    """
    data, config = task.dataset, task.config
    return StudentCard(
        shape=student.shape,
        classes=task.classes,
        templates=task.templates,
        mean=MEAN,
        std=STD,
        short_side=hparams.short_side,
        long_side=hparams.long_side,
        teacher=dict(teacher),
        training={
            "setting": config.setting,
            "unseen": [data.classes.names[i] for i in task.unseen],
            "data": {
                "root": data.where,
                "benchmark": data.benchmark,
                "split": data.split,
                "classes": "" if data.benchmark else config.classes,
                "background": "auto" if data.benchmark else config.background,
            },
            "labels": str(task.run) if task.run else None,
            **{key: getattr(config, key) for key in TEACHING},
            "method": config.method_name,
            "preset": hparams.preset,
            "init": hparams.init,
            "iterations": hparams.iterations,
        },
        versions=versions(),
    )


def training_identity(
    task: TrainingTask, hparams: Hyperparameters, teacher: Mapping[str, Any], computes: str
) -> dict[str, Any]:
    """All that the weights depend on; how many processes share the work changes rounding only."""
    options, numbers = dataclasses.asdict(task.config), dataclasses.asdict(hparams)
    made_by = read_manifest(task.run) if task.run else None
    return {
        "kind": "train",
        "dataset": dataset_identity(task.dataset, task.samples),
        "labels": task.run
        and {
            "run": str(task.run.resolve()),
            "made_with": made_by and made_by.identity["options"],
            "sha256": _content(task.run, task),
            **({"human": _human(task)} if task.human else {}),
        },
        "teacher": dict(teacher),
        "options": {k: v for k, v in options.items() if k not in _ELSEWHERE | _HOW_OFTEN},
        "numbers": {k: v for k, v in numbers.items() if k not in _HOW_OFTEN},
        "classes": class_table_rows(task.classes),
        "background": task.classes.background,
        "ignore": ignore_value(len(task.classes)),
        "unseen": [task.dataset.classes.names[i] for i in task.unseen],
        "computes": computes,
        "versions": library_versions(),
    }


def _content(run: Path, task: TrainingTask) -> str:
    """Of all labels that are learnt from; a resumed training must find the same."""
    found = hashlib.sha256()
    for sample in task.samples:
        line = f"{sample.source.name} {file_fingerprint(label_path(run, sample))}\n"
        found.update(line.encode(errors="surrogateescape"))
    return found.hexdigest()


def _human(task: TrainingTask) -> dict[str, Any]:
    """What humans changed in the labels of a run; a resumed training must find the same."""
    text = "\n".join(f"{name} {label}" for name, label in sorted(task.human.items()))
    return {
        "weight": task.config.human_weight,
        "labels": len(task.human),
        "sha256": hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest(),
    }
