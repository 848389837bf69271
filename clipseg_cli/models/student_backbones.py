"""Which ResNets a student can stand on, and with which weights they begin.

Stages stride 1, 2, 1, 1 at output stride 8 and dilate 1, 1, 2, 4; the first block of a dilated stage still has
the dilation of the stage before it, as in the published networks ("contract_dilation").
"""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch

from clipseg_cli.errors import ModelError, UsageError
from clipseg_cli.models import hub
from clipseg_cli.models.checkpoints import read_checkpoint
from clipseg_cli.utils.registry import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from clipseg_cli.models.student import Student

logger = logging.getLogger(__name__)

OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18c": ("resnet18", {"stem_type": "deep", "stem_width": 32}),
}
"""ResNets that timm can build but does not name: (what it is made of, with which arguments)."""

STRIDES = (8, 16, 32)
FIRST_STAGE, LAST_STAGE = 1, 4
FIRST_STRIDE = 4

WAYS_OUT = "two ways out: weights from a file with --init FILE, or random ones with --init none"


@cache
def backbone_names() -> tuple[str, ...]:
    """All names that `build_backbone` takes, sorted."""
    return tuple(sorted({*timm.list_models("resnet*", module="resnet"), *OWN}))


def build_backbone(name: str, output_stride: int, stages: tuple[int, ...]) -> tuple[nn.Module, list[int]]:
    """A ResNet with random weights (kaiming, as timm does).

    Args:
        name: one of `backbone_names()`.
        output_stride: 8, 16 or 32; of the last stage.
        stages: whose outputs it returns, 1 to 4, ascending.

    Returns:
        The network, [B,3,H,W] -> one [B,c,ceil(H/s),ceil(W/s)] for each stage, and the c of each.

    Raises:
        UsageError: unknown name, or one that cannot have that stride.
    """
    check_backbone(name)
    if output_stride not in STRIDES:
        raise UsageError(f"output stride {output_stride}: only {', '.join(map(str, STRIDES))} are possible")
    net = _create(name, features_only=True, output_stride=output_stride, out_indices=stages)
    return net, net.feature_info.channels()


def check_backbone(name: str) -> None:
    """Prove that there is such a backbone.

    Raises:
        UsageError: there is none; the hint names the nearest.
    """
    if name not in backbone_names():
        known = did_you_mean(name, backbone_names())
        raise UsageError(f"unknown backbone '{name}'", hint=known or "a ResNet of timm, such as 'resnet101c'")


def _create(name: str, **options: Any) -> Any:
    original, variant = OWN.get(name, (name, {}))
    return timm.create_model(original, **variant, **options)


def initialise(student: Student, init: str) -> str:
    """Give the backbone its first weights; the head keeps its random ones.

    Args:
        student: changed in place.
        init: "imagenet" for those that timm publishes, "none" for random ones, or a file of weights with
            timm's names, whether bare or wrapped by a training program.

    Returns:
        What was taken, for the log.

    Raises:
        ModelError: no such weights, or they cannot be fetched, read or fitted.
    """
    name = student.shape.backbone
    if init == "none":
        return f"{name} with random weights"
    if init == "imagenet":
        student.backbone.load_state_dict(_imagenet_weights(name))
        return f"{name} with ImageNet weights"
    # Of the module os, whose functions take any text: over-long, with a null byte, of an unknown user.
    path = Path(os.path.expanduser(init))  # noqa: PTH111
    weights = read_checkpoint(path).tensors
    _fit(student.backbone, weights, name, init)
    return f"{name} with weights from {init}"


def _imagenet_weights(name: str) -> dict[str, Tensor]:
    what = f"ImageNet weights of {name}"
    if name in OWN or not timm.is_model_pretrained(name):
        raise ModelError(f"there are no {what}", hint=f"{WAYS_OUT}; near ones that have: {_near(name)}")

    def load() -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            net = _create(name, pretrained=True, features_only=True)
        return dict(net.state_dict())

    try:
        return hub.with_cache_first(load, load, what)
    except ModelError as error:
        hint = WAYS_OUT if error.hint == hub.WAYS_OUT else error.hint
        raise ModelError(error.message, hint=hint) from error


def _near(name: str) -> str:
    return ", ".join(n for n in ("resnet18", "resnet50c", "resnet101c") if n != name)


def _fit(net: nn.Module, weights: Mapping[str, Tensor], name: str, source: str) -> None:
    state = {k: v for k, v in weights.items() if not k.startswith("fc.")}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{source} does not fit {name}") from error
