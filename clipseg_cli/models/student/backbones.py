"""Which ResNets a student can stand on, and with which weights they begin.

At output stride 8 the stages have strides 1, 2, 1, 1 and dilations 1, 1, 2, 4; the first block of a dilated stage
still has the dilation of the stage before it, as in the published networks ("contract_dilation").
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import AUTO, BUNDLED_BACKBONE, BUNDLED_MODEL
from clipseg_cli.errors import ModelError, UsageError, did_you_mean, hinting
from clipseg_cli.models.clip.architectures import bundled_file
from clipseg_cli.models.weights import hub
from clipseg_cli.models.weights.checkpoints import find_weight_file, read_checkpoint
from clipseg_cli.models.weights.fitting import fit_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18c": ("resnet18", {"stem_type": "deep", "stem_width": 32}),
}
"""ResNets that timm can build but has no name for: (which of its own, with which arguments)."""

WRONG_SIZE = "resnetaa"
"""Begins the names of those that round sizes down, not up, where they halve them."""

STRIDES = (8, 16, 32)
FIRST_STAGE, LAST_STAGE = 1, 4
FIRST_STRIDE = 4

WAYS_OUT = "two ways out: weights from a file with --init FILE, or random ones with --init none"
IMAGENET, RANDOM = "imagenet", "none"

BUNDLED_WEIGHTS = "student.safetensors"
"""Of `BUNDLED_BACKBONE` and the head of DeepLabv2, beside the bundled model; its metadata name the backbone too."""

SCALE = ".scale"
"""Ends the name of what the 8-bit filters of that name are multiplied by, one number for each."""

_DEPTHS: dict[tuple[str, tuple[int, ...]], int] = {
    ("basic", (1, 1, 1, 1)): 10,
    ("bottleneck", (1, 1, 1, 1)): 14,
    ("basic", (2, 2, 2, 2)): 18,
    ("bottleneck", (2, 2, 2, 2)): 26,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
    ("bottleneck", (3, 8, 36, 3)): 152,
    ("bottleneck", (3, 24, 36, 3)): 200,
}
_DEEP_STEMS = {24: "t", 32: "c", 64: "s"}
"""Channels of the first convolution, where the stem has three of them."""


@cache
def backbone_names() -> tuple[str, ...]:
    """All names that `build_backbone` takes, sorted."""
    import timm

    known = timm.list_models("resnet*", module="resnet")
    return tuple(sorted({*(name for name in known if not name.startswith(WRONG_SIZE)), *OWN}))


def check_backbone(name: str) -> None:
    """Prove that there is such a backbone.

    Raises:
        UsageError: there is none; the hint names the nearest.
    """
    if name not in backbone_names():
        near = did_you_mean(name, backbone_names())
        raise UsageError(f"unknown backbone '{name}'", hint=near or "a ResNet of timm, such as resnet101c")


def build_backbone(name: str, output_stride: int, stages: tuple[int, ...]) -> tuple[nn.Module, list[int]]:
    """A ResNet with random weights (kaiming, as timm does).

    Args:
        name: one of `backbone_names()`.
        output_stride: 8, 16 or 32; of the last stage.
        stages: whose outputs it returns, 1 to 4, ascending.

    Returns:
        The network, [B,3,H,W] -> one [B,c,ceil(H/s),ceil(W/s)] for each stage, and the c of each.

    Raises:
        UsageError: unknown name or stride.
    """
    check_backbone(name)
    if output_stride not in STRIDES:
        raise UsageError(f"output stride {output_stride}: must be one of {', '.join(map(str, STRIDES))}")
    original, variant = OWN.get(name, (name, {}))
    import timm

    net: Any = timm.create_model(
        original, features_only=True, output_stride=output_stride, out_indices=stages, **variant
    )
    return net, net.feature_info.channels()


def initialise(net: nn.Module, name: str, init: str, head: nn.Module | None = None) -> str:
    """Give a student its first weights; those in the package have some for its head too.

    Args:
        net: what `build_backbone` made; changed in place.
        name: by which it was built.
        head: of the student; changed in place where there are weights that fit, else it keeps its own.
        init: "emoji" for the weights in the package, which know drawings; "imagenet" for those that timm publishes;
            "none" for the random ones it has; or a file of any layout that `read_checkpoint` reads, of a classifier of
            timm or torchvision, of a student, or of a network of mmsegmentation.

    Returns:
        What was taken, for the log.

    Raises:
        UsageError: none of these.
        ModelError: there are no such weights, or they cannot be downloaded, read or loaded into the network.
    """
    if init == RANDOM:
        return f"{name} with random weights"
    if init == BUNDLED_MODEL:
        _fit_bundled(net, name, head)
        return f"{name} with the weights in the package"
    if init == IMAGENET:
        path, source = _imagenet_file(name)
    else:
        path, source = _local_file(init), init
    _fit(net, read_checkpoint(path).tensors, name, source)
    return f"{name} with weights of {source}"


def _fit_bundled(net: nn.Module, name: str, head: nn.Module | None) -> None:
    """The weights that `recipes/emoji/backbone.py` made for students of the bundled model."""
    path = bundled_file(BUNDLED_WEIGHTS)
    if name != BUNDLED_BACKBONE:
        raise UsageError(
            f"--init {BUNDLED_MODEL}: the package has weights of {BUNDLED_BACKBONE}, not of {name}",
            hint=f"--backbone {BUNDLED_BACKBONE}, or --init {IMAGENET}",
        )
    hint = f"install the package again; or {WAYS_OUT.partition(': ')[2]}"
    if not path.is_file():
        raise ModelError(
            f"the first weights for students are missing in this installation ({path})", hint=hint
        )
    with hinting(hint):
        weights = widened(read_checkpoint(path).tensors)
        _fit(net, weights, name, str(path))
    own = {k.removeprefix("head."): v for k, v in weights.items() if k.startswith("head.")}
    expected = {k: v for k, v in head.state_dict().items() if v.is_floating_point()} if head else {}
    if head is not None and all(k in own and own[k].shape == v.shape for k, v in expected.items()):
        head.load_state_dict(own, strict=False)


def widened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as the package ships them for students: filters of 8 bits times their scales, all others as they are."""
    wide = {k: v for k, v in tensors.items() if not k.endswith(SCALE)}
    for name, weight in wide.items():
        scale = tensors.get(f"{name}{SCALE}")
        if scale is not None:
            wide[name] = weight.float() * scale.view(-1, *[1] * (weight.ndim - 1))
    return wide


def _imagenet_file(name: str) -> tuple[Path, str]:
    """The file, and what it is called at the hub."""
    what = f"ImageNet weights of {name}"
    import timm

    if name in OWN or not timm.is_model_pretrained(name):
        have = [n for n in backbone_names() if n not in OWN and timm.is_model_pretrained(n)]
        near = difflib.get_close_matches(name, have, n=3, cutoff=0.0)
        raise ModelError(f"there are no {what}", hint=f"--backbone {' or '.join(near)} have them; {WAYS_OUT}")
    published: Any = timm.models.get_pretrained_cfg(name)
    config = published.to_dict()
    return hub.fetch_timm_weights(config, f"the file with the {what}", WAYS_OUT), str(config["hf_hub_id"])


def _local_file(init: str) -> Path:
    path = find_weight_file(init, f"--init {IMAGENET} needs no file")
    if path is not None:
        return path
    known = (AUTO, BUNDLED_MODEL, IMAGENET, RANDOM)
    raise UsageError(
        f"--init {init}: neither a file nor one of {', '.join(known)}", hint=did_you_mean(init, known)
    )


def _fit(net: nn.Module, weights: Mapping[str, Tensor], name: str, source: str) -> None:
    """Load the weights of a backbone, or say why they are not."""
    state = _backbone_part(weights)

    def hint() -> str:
        guess = _guess(state)
        if guess in (None, name):
            return "wanted: a state dict with the names of timm, such as layer1.0.conv1.weight"
        return f"it looks like {guess}: --backbone {guess}"

    fit_weights(net, state, source=source, name=name, hint=hint)


def _backbone_part(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ResNet alone, as timm names it, out of a classifier or a segmenting network."""
    prefix = "backbone."
    if any(k.startswith(prefix) for k in weights):
        weights = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
    # mmsegmentation counts the last batch norm of a deep stem in with the stem.
    renamed = {re.sub(r"^stem\.", "conv1.", re.sub(r"^stem\.7\.", "bn1.", k)): v for k, v in weights.items()}
    return {k: v for k, v in renamed.items() if not k.startswith("fc.")}


def _guess(state: Mapping[str, Tensor]) -> str | None:
    """The backbone that these weights look like, if it is one of ours."""
    blocks = tuple(len({k.split(".")[1] for k in state if k.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4))
    kind = "bottleneck" if "layer1.0.conv3.weight" in state else "basic"
    depth = _DEPTHS.get((kind, blocks))
    stem, shortcut = state.get("conv1.0.weight"), state.get("layer2.0.downsample.1.weight")
    variant = "" if stem is None else _DEEP_STEMS.get(len(stem), "")
    if (
        variant == "c" and shortcut is not None and shortcut.ndim == 4
    ):  # behind an average pool, not batch norm
        variant = "d"
    name = f"resnet{depth}{variant}"
    return name if name in backbone_names() else None
