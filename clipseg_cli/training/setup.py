"""Building what is trained: student, optimiser, and the network as all processes share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clipseg_cli.errors import UsageError
from clipseg_cli.models.student.backbones import initialise
from clipseg_cli.models.student.network import Student, StudentShape
from clipseg_cli.models.student.synced_norm import synchronise

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.config import TrainConfig
    from clipseg_cli.training.hyperparameters import Numbers
    from clipseg_cli.types import ClassList
    from clipseg_cli.utils.distributed import Share

LEAST_CROPS = 2
"""In a forward pass of all ranks together, where a batch norm sees one value for each crop."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, on which backbones are pretrained."""


def build_student(
    config: TrainConfig, numbers: Numbers, classes: ClassList, text_embeds: Tensor
) -> tuple[Student, str]:
    """A student with its first weights, on the CPU, and a sentence on where they came from.

    Args:
        config: with `normalise` and `seed`.
        numbers: with backbone, its first weights, and head.
        classes: with one word for a background, which is learnt.
        text_embeds: [Q, D], unit rows.

    Raises:
        ClipsegError: an unknown backbone, or weights that cannot be had or do not fit.
    """
    shape = StudentShape(
        numbers.backbone, numbers.head, text_embeds.shape[1], config.normalise, numbers.centre
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = Student(shape, text_embeds.cpu(), classes.query_to_class, classes.background)
    return student, initialise(student.backbone, student.shape.backbone, numbers.init, student.head)


def check_crops(numbers: Numbers) -> None:
    """Prove that the head can learn from the crops of one forward pass.

    Raises:
        UsageError: it cannot, since it normalises over crops alone; several ranks do so together.
    """
    at_once = numbers.batch_size // numbers.accumulate
    if numbers.head == "deeplabv3plus" and at_once < LEAST_CROPS:
        raise UsageError(
            "the head deeplabv3plus cannot learn from one crop at a time",
            hint=f"use --batch-size {LEAST_CROPS * numbers.accumulate} or more, or a smaller --accumulate",
        )


def build_optimiser(student: Student, numbers: Numbers) -> torch.optim.Optimizer:
    """The optimiser over all parameters, normalisation and background too, as published."""
    if numbers.optimiser == "adamw":
        return torch.optim.AdamW(student.parameters(), lr=numbers.rate, weight_decay=numbers.weight_decay)
    return torch.optim.SGD(
        student.parameters(),
        lr=numbers.rate,
        momentum=numbers.momentum,
        weight_decay=numbers.weight_decay,
    )


def share_network(student: Student, device: torch.device, share: Share, *, compiled: bool) -> nn.Module:
    """The student as it is called in training: its gradients, and its batch statistics, are those of all ranks."""
    network: Any = torch.compile(student) if compiled else student
    if not share.launched:
        return cast("nn.Module", network)
    return DistributedDataParallel(
        network,
        device_ids=[device.index or 0] if device.type == "cuda" else None,
        broadcast_buffers=False,
        gradient_as_bucket_view=True,
    )


def place(student: Student, device: torch.device, share: Share) -> Student:
    """The student on its device, channels last, with batch normalisation over all ranks where there are several."""
    student.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if share.launched:
        synchronise(student)
    return student
