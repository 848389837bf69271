"""Second networks: which one an option means, and what of it can be checked before anything is loaded."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from clipseg_cli.config import BEST, BUNDLED_MODEL, GRAPHS, NO_SALIENCY, SALIENCY_HEADS
from clipseg_cli.errors import ModelError, UsageError, hinting
from clipseg_cli.inference.regions import reads_names
from clipseg_cli.methods import find_method
from clipseg_cli.models.auxiliary.dinoiser_head import DinoiserHead
from clipseg_cli.models.auxiliary.saliency import ClipCut, Found, LeastAttended
from clipseg_cli.models.auxiliary.self_supervised import (
    SelfSupervisedGuide,
    check_self_supervised,
    load_self_supervised,
)
from clipseg_cli.models.auxiliary.stages import Stages
from clipseg_cli.models.clip.architectures import BUNDLED_TAG
from clipseg_cli.models.weights import hub
from clipseg_cli.models.weights.checkpoints import read_checkpoint
from clipseg_cli.types import Reading

if TYPE_CHECKING:
    import torch

    from clipseg_cli.config import InferenceConfig, Protocol
    from clipseg_cli.models.auxiliary.saliency import Saliency
    from clipseg_cli.models.auxiliary.self_supervised import SelfSupervisedViT
    from clipseg_cli.models.clip.backbones import Backbone
    from clipseg_cli.types import ClassList, Guide, Method

FOUND_HEAD = "https://raw.githubusercontent.com/valeoai/FOUND/1ad22bacf1a6854faff1b5d4be300d54cad6f277/data/weights/decoder_weights.pt"
"""The commit in it fixes the content."""

KINDS = (BEST, NO_SALIENCY, "clip", "dino", "found")
"""What decides where the foreground is, beside folders of maps."""

WAYS_OUT = (
    "give both files with --saliency found=HEAD,DINO; or cut CLIP's own patches with --saliency clip; or take a model "
    f"that has a head of its own: --model {' or '.join(SALIENCY_HEADS)}"
)


def check_guides(config: InferenceConfig, method: Method, *, remembers: bool = False) -> None:
    """Prove what can be proved of the auxiliary networks before anything is loaded.

    Args:
        config: the user's options.
        method: in use.
        remembers: a memory of regions is made or asked, which may look through a guide.

    Raises:
        UsageError: a guide that is missing, unknown or not asked for, or an unknown kind of saliency.
        ModelError: the file of a guide is missing.
    """
    if method.guided is True and not config.guide:
        raise UsageError(
            f"--method {config.method_name} needs another network",
            hint="name one with --guide: dino, dino-b8, dinov2, any ViT of timm, or NAME=FILE",
        )
    if config.guide and not (remembers or asks_guide(config, method)):
        raise UsageError(
            f"--method {config.method_name} asks no other network",
            hint="leave out --guide, or use --method proxyclip or corrclip, or --propagate lposs",
        )
    if config.guide and not _is_head(config, method):
        check_self_supervised(config.guide)
    kind = config.saliency.partition("=")[0]
    if kind not in KINDS and not _folder(config.saliency).is_dir():
        raise UsageError(
            f"unknown saliency '{config.saliency}'", hint=f"{', '.join(KINDS)}, or a folder of maps"
        )


def require_background(config: InferenceConfig, classes: ClassList) -> None:
    """Saliency decides what is background, so that one of the classes has to be it.

    Raises:
        UsageError: none is.
    """
    asked = config.saliency_name(classes.background is not None) != NO_SALIENCY
    if asked and classes.background is None:
        raise UsageError(
            f"--saliency {config.saliency} decides what is background, and there is none among the classes",
            hint="name some with --background, or leave --saliency out",
        )


def load_guide(
    config: InferenceConfig,
    method: Method,
    backbone: Backbone,
    protocol: Protocol,
    device: torch.device,
    dtype: torch.dtype,
) -> Guide | None:
    """The network that a method or a propagation asks, computing in `dtype`, or None where none is asked.

    Raises:
        ClipsegError: unknown, or its weights cannot be downloaded, read or loaded into the network.
    """
    if not config.guide or not asks_guide(config, method):
        return None
    if _is_head(config, method):
        tensors = read_checkpoint(_folder(config.guide)).tensors
        if "obj_proj.weight" not in tensors:
            raise ModelError(
                f"{config.guide} is no head of CLIP-DINOiser", hint="name a network with --guide NAME=FILE"
            )
        return DinoiserHead.of(tensors).to(device)
    mean, std = protocol.mean or backbone.mean, protocol.std or backbone.std
    vit = load_self_supervised(config.guide, device, dtype)
    return SelfSupervisedGuide(vit, mean, std, reads=method.guide_reads if method.guided else "values")


def load_key_encoder(
    config: InferenceConfig,
    guide: Guide | None,
    backbone: Backbone,
    protocol: Protocol,
    device: torch.device,
    dtype: torch.dtype,
) -> SelfSupervisedGuide | None:
    """The network of `--guide` as a memory of regions asks it, by its last tokens; None leaves that to the tower.

    Args:
        config: a memory of regions is made or asked.
        guide: the same network as the method asks it, where it does.
        backbone, protocol: say how images are normalised.
        device, dtype: where and in what precision it computes.

    Raises:
        ClipsegError: it is no network, or its weights cannot be downloaded, read or loaded.
    """
    if not config.guide:
        return None
    mean, std = protocol.mean or backbone.mean, protocol.std or backbone.std
    if isinstance(guide, DinoiserHead):
        raise UsageError(
            f"{config.guide} is a head inside CLIP, and a memory of regions needs a network that sees images",
            hint="name a network with --guide, such as dino-b8",
        )
    if isinstance(guide, SelfSupervisedGuide):
        return SelfSupervisedGuide(guide.vit, mean, std, reads="tokens")
    return SelfSupervisedGuide(load_self_supervised(config.guide, device, dtype), mean, std, reads="tokens")


def asks_guide(config: InferenceConfig, method: Method) -> bool:
    """Whether the method or the propagation looks at a guide."""
    return bool(method.guided) or config.propagate in GRAPHS


def _is_head(config: InferenceConfig, method: Method) -> bool:
    """Whether `--guide` names a file for a method that takes a head: one of CLIP-DINOiser."""
    return method.pool is not None and _folder(config.guide).is_file()


def load_saliency(
    config: InferenceConfig, backbone: Backbone, device: torch.device, dtype: torch.dtype
) -> Saliency | None:
    """What finds the foreground, computing in `dtype`, or None where nothing does, or where a folder holds its maps.

    Raises:
        ClipsegError: its weights cannot be downloaded, read or loaded, or CLIP gives no dense features.
    """
    kind, _, files = config.saliency_name().partition("=")
    if kind == "clip":
        reader = backbone.reader(find_method("maskclip"), Reading())
        return ClipCut(reader, backbone.model.visual, backbone.mean, backbone.std)
    if kind not in ("dino", "found"):
        return None
    if kind == "dino":
        return LeastAttended(_dino(files, device, dtype))
    if not files and backbone.name in SALIENCY_HEADS and backbone.pretrained == BUNDLED_TAG:
        return Found.own(backbone)
    head, dino = _two_files(files)
    with nullcontext() if dino else hinting(WAYS_OUT):
        vit = _dino(dino, device, dtype)
    with nullcontext() if head else hinting(WAYS_OUT):
        path = _folder(head) if head else hub.fetch_weights({"url": FOUND_HEAD}, "the head of FOUND")
    return Found.of(vit, read_checkpoint(path).tensors, head or FOUND_HEAD)


def load_stages(backbone: Backbone, device: torch.device, dtype: torch.dtype) -> Stages | None:
    """The network whose stages are remembered beside the tower; only the bundled model has one.

    Raises:
        ModelError: its weights are missing or damaged.
    """
    if (backbone.name, backbone.pretrained) != (BUNDLED_MODEL, BUNDLED_TAG):
        return None
    return Stages.own(device, dtype)


def _two_files(text: str) -> tuple[str, str]:
    """HEAD and DINO of "HEAD,DINO", either of which may be left out; paths may hold commas themselves."""
    commas = [i for i, char in enumerate(text) if char == ","]
    if not commas or _folder(text).is_file():
        return text, ""
    pairs = [(text[:i], text[i + 1 :]) for i in commas]
    there = [pair for pair in pairs if all(not part or _folder(part).exists() for part in pair)]
    return (there or pairs)[0]


def _dino(file: str, device: torch.device, dtype: torch.dtype) -> SelfSupervisedViT:
    return load_self_supervised(f"dino={file}" if file else "dino", device, dtype)


def saliency_folder(config: InferenceConfig) -> Path | None:
    """The folder of `--saliency DIR`, or None."""
    folder = _folder(config.saliency)
    known = config.saliency.partition("=")[0] in KINDS
    return None if known or not folder.is_dir() else folder


def maps_by_name(config: InferenceConfig) -> str:
    """The option whose maps are found by the names of images, as in "--saliency"; empty where there is none."""
    if saliency_folder(config):
        return "--saliency"
    return "--regions" if reads_names(config.regions) else ""


def _folder(text: str) -> Path:
    return Path(os.path.expanduser(text))  # noqa: PTH111  (leaves the home of an unknown user as it is written)
