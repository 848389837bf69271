"""What `clipseg models` lists: every architecture, its weights, whether it gives dense features, its size."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from clipseg_cli.config import BUNDLED_MODEL
from clipseg_cli.errors import ModelError
from clipseg_cli.models.clip import architectures
from clipseg_cli.models.weights import hub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn


READABLE_TRUNKS = (
    *("vit_base_", "vit_large_", "vit_so400m_", "vit_giantopt_", "vit_pe_core_", "vit_medium_patch16_gap_"),
    *("eva", "vitamin_", "convnext_", "fastvit_"),
)
"""Beginnings of the timm names of towers that give dense features."""

OTHER_BLOCKS = ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")


@dataclass(frozen=True)
class TagInfo:
    """One set of weights: its tag, and whether it is on this machine."""

    tag: str
    cached: bool


@dataclass(frozen=True)
class BackboneInfo:
    """One architecture.

    Attributes:
        name: what `--model` takes.
        tags: what `--pretrained` takes, besides a file.
        dense: whether this tool can read features per patch from it.
        reason: why not; empty if it can.
        image_size: native side in pixels.
        image_params, total_params: number of parameters of the image tower and of the whole; None if unknown
            without the network.
        needs: a package that its text side needs and that is not installed; may be empty.
    """

    name: str
    tags: tuple[TagInfo, ...]
    dense: bool
    reason: str
    image_size: int
    image_params: int | None
    total_params: int | None
    needs: str = ""

    @property
    def cached(self) -> bool:
        """Whether any of its weights are on this machine."""
        return any(tag.cached for tag in self.tags)


def list_backbones(matching: str = "") -> list[BackboneInfo]:
    """All architectures whose name contains `matching`, the bundled model first.

    Sizes are counted on the meta device, without memory for weights; about 6 s for all, far less for a few.
    """
    needle = matching.lower().replace("/", "-")
    counter = _Counter()
    found = []
    for name in architectures.list_architectures():
        if needle not in name.lower():
            continue
        try:
            config = architectures.architecture_config(name)
        except ModelError as error:  # a source checkout without the bundled weights still lists the others
            found.append(BackboneInfo(name, (), False, error.message, 0, None, None))
            continue
        found.append(_describe(name, config, counter))
    return found


def unreadable_config(config: Mapping[str, Any]) -> str:
    """Why the image tower of a `model_cfg` gives no dense features; empty if it does.

    Says of a configuration what `towers.unreadable` says of a tower; a test holds them together.
    """
    vision = config["vision_cfg"]
    if trunk := vision.get("timm_model_name"):
        return "" if trunk.startswith(READABLE_TRUNKS) else "attention bound to one grid of positions"
    if vision.get("attentional_pool") not in (None, False, True):  # parallel or cascade
        return "two poolings by attention"
    if vision.get("block_type") == "custom" or any(vision.get(option) for option in OTHER_BLOCKS):
        return "attention blocks of another kind"
    return ""


def require_readable(model: str) -> None:
    """Refuse an architecture without dense features, before its weights are fetched.

    Raises:
        UsageError: there is no such architecture.
        ModelError: it gives no dense features; says why.
    """
    name = architectures.resolve_architecture(model)
    reason = unreadable_config(architectures.architecture_config(name))
    if reason:
        raise ModelError(
            f"{name} gives no dense features: {reason}",
            hint="'clipseg models' shows which can, for example ViT-B-16, ViT-L-14 or RN50",
        )


def _describe(name: str, config: dict[str, Any], counter: _Counter) -> BackboneInfo:
    reason = unreadable_config(config)
    size = config["vision_cfg"].get("image_size", 224)
    image, text = counter.image(config), counter.text(config)
    hugging = config["text_cfg"].get("hf_tokenizer_name") or config["text_cfg"].get("hf_model_name")
    return BackboneInfo(
        name=name,
        tags=tuple(TagInfo(tag, _is_cached(name, tag)) for tag in architectures.tags(name)),
        dense=not reason,
        reason=reason,
        image_size=size if isinstance(size, int) else min(size),
        image_params=image,
        total_params=None if image is None or text is None else image + text + 1,  # and the temperature
        needs="transformers" if hugging and importlib.util.find_spec("transformers") is None else "",
    )


def _is_cached(name: str, tag: str) -> bool:
    if name == BUNDLED_MODEL:
        return architectures.bundled_file("model.safetensors").is_file()
    return hub.cached_weights(architectures.tag_config(name, tag) or {}) is not None


class _Counter:
    """Counts parameters of towers; equal towers of several architectures only once."""

    def __init__(self) -> None:
        self.known: dict[str, int | None] = {}

    def image(self, config: Mapping[str, Any]) -> int | None:
        vision = dict(config["vision_cfg"])
        if vision.get("timm_model_name"):
            vision.pop("image_size", None)  # open_clip leaves the size to timm
        from open_clip.model import (
            _build_vision_tower,  # with open_clip comes much that labelling does without
        )

        return self._count(_build_vision_tower, config["embed_dim"], vision)

    def text(self, config: Mapping[str, Any]) -> int | None:
        if config["text_cfg"].get("hf_model_name") or "multimodal_cfg" in config:
            return None  # the first lives on the hub, the second has a decoder besides
        from open_clip.model import _build_text_tower

        return self._count(_build_text_tower, config["embed_dim"], dict(config["text_cfg"]))

    def _count(self, build: Callable[..., nn.Module], embed_dim: int, tower: dict[str, Any]) -> int | None:
        key = f"{build.__name__} {embed_dim} {json.dumps(tower, sort_keys=True)}"
        if key not in self.known:
            try:
                with hub.quiet(), torch.device("meta"), architectures.SkipInit():
                    net = build(embed_dim, tower)
                self.known[key] = sum(p.numel() for p in net.parameters())
            except Exception:  # a tower that this version of timm does not know cannot be counted
                self.known[key] = None
        return self.known[key]
