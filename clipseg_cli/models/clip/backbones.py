"""Loading a frozen CLIP: any architecture of open_clip with any weights, or the small bundled model."""

from __future__ import annotations

import copy
import functools
import importlib.util
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import BUNDLED_MODEL
from clipseg_cli.errors import ModelError, UsageError, did_you_mean
from clipseg_cli.models.clip import architectures
from clipseg_cli.models.clip.architectures import Normalisation
from clipseg_cli.models.clip.conversion import fit_clip
from clipseg_cli.models.clip.dense_transformer import dense_reader, with_overrides
from clipseg_cli.models.clip.towers import patch_of
from clipseg_cli.models.clip.vit import Clip
from clipseg_cli.models.clip.whole_image import WholeReader
from clipseg_cli.models.weights import hub
from clipseg_cli.models.weights.checkpoints import find_weight_file, read_checkpoint
from clipseg_cli.models.weights.fingerprints import fingerprint_of, tower_fingerprint
from clipseg_cli.utils.imports import module_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from clipseg_cli.models.clip.dense_conv import DenseConv, DenseResNet
    from clipseg_cli.models.clip.dense_transformer import DenseTransformer
    from clipseg_cli.types import Method, Reading

logger = logging.getLogger(__name__)

MAX_LOGIT_SCALE = 100.0  # CLIP, section 2.5: the temperature is clipped so that logits never grow beyond x100
DENSE_SCALE = 1.5
"""Dense reading gains from images larger than the native side: 336 for 224."""


@dataclass(frozen=True)
class Backbone:
    """A frozen CLIP, ready to be read.

    Attributes:
        model: a CLIP in eval mode, without gradients, fp32, on its device; `Clip`, or a class of open_clip.
        tokenizer: words [n] -> token ids [n, context].
        name: architecture as open_clip spells it, or "emoji".
        pretrained: the tag that was taken, "bundled", or the path of the file.
        fingerprint: 16 hex digits; equal for equal weights in one architecture, whatever the format.
        mean, std: of images in [0, 1].
        image_size: native side in pixels.
        short_side: side to which dense reading resizes by default, in whole patches.
        logit_scale: factor on cosines before the softmax, at most 100.
        words: what the bundled model was trained on; None for any other.
        tower: fingerprint of the image tower by itself, where a head in the package belongs to it; else empty.
    """

    model: nn.Module
    tokenizer: Callable[[list[str]], Tensor]
    name: str
    pretrained: str
    fingerprint: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    short_side: int
    logit_scale: float
    words: frozenset[str] | None = None
    tower: str = ""

    def reader(
        self, method: Method | None, how: Reading
    ) -> DenseTransformer | DenseResNet | DenseConv | WholeReader:
        """How its image tower is read; see `dense_reader`.

        Raises:
            ModelError: the tower gives no dense features.
        """
        if method is None:
            raise TypeError("a CLIP is read by a method")
        if method.pyramid is not None:
            model: Any = copy.copy(self.model)
            model.visual = with_overrides(model.visual, how.activation, how.ln_eps)
            return WholeReader(model, self.image_size)
        visual: Any = self.model.visual
        return dense_reader(visual, method, how)


@dataclass(frozen=True)
class _Source:
    """Where weights come from and what is known about them before they are read."""

    pretrained: str
    path: Path | None
    tag: Mapping[str, Any] | None
    normalisation: Normalisation
    quick_gelu: bool = False
    words: frozenset[str] | None = None


def load_backbone(model: str, pretrained: str | None, device: torch.device) -> Backbone:
    """Load an architecture with its weights.

    Args:
        model: a name of `open_clip.list_models()` (also `ViT-B/16`), or `emoji` for the bundled model.
        pretrained: a tag of open_clip or a weight file; None takes `openai`, else the first tag.
        device: where the model goes.

    QuickGELU is chosen by what is known of the weights: the tag, the layout of OpenAI's own files, the
    configuration or file name under which a tag is published. A bare state dict does not tell; then the
    architecture's own activation stays, and a name ending in `-quickgelu` forces the other.

    Raises:
        UsageError: unknown model or tag.
        ModelError: weights cannot be downloaded, read or loaded into the network.
    """
    name = architectures.resolve_architecture(model)
    source = _find_source(name, pretrained)
    what = f"{name} / {source.pretrained}"
    config = architectures.architecture_config(name)
    tokenizer = _load_tokenizer(name, config)  # before the weights: it may miss a package
    checkpoint = read_checkpoint(source.path or hub.fetch_weights(source.tag or {}, what))
    if checkpoint.quick_gelu or (checkpoint.quick_gelu is None and source.quick_gelu):
        config["quick_gelu"] = True
    config["quick_gelu"] = bool(config.get("quick_gelu", False))
    logger.info("%s: %s", what, "QuickGELU" if config["quick_gelu"] else "GELU")

    net = _build(config, what)
    fit_clip(net, checkpoint, name, source.pretrained)
    weights = net.weights() if isinstance(net, Clip) else sorted(net.state_dict().items())
    image_size = _side(net.visual.image_size)
    (net.visual if isinstance(net, Clip) else net).to(device)  # the words follow when they are read
    return Backbone(
        model=net,
        tokenizer=tokenizer,
        name=name,
        pretrained=source.pretrained,
        fingerprint=fingerprint_of(weights, config),
        mean=source.normalisation.mean,
        std=source.normalisation.std,
        image_size=image_size,
        short_side=image_size if name == BUNDLED_MODEL else _dense_side(net, image_size),
        logit_scale=min(float(net.logit_scale.detach().float().exp().mean()), MAX_LOGIT_SCALE),
        words=source.words,
        tower=tower_fingerprint(net.visual) if name == BUNDLED_MODEL else "",
    )


def _find_source(name: str, pretrained: str | None) -> _Source:
    if name == BUNDLED_MODEL:
        return _bundled_source(pretrained)
    if pretrained is None:
        pretrained = architectures.default_tag(name)
    if tag := architectures.tag_config(name, pretrained):
        return _Source(pretrained, None, tag, Normalisation.of(tag), bool(tag.get("quick_gelu")))
    path = _file(name, pretrained)
    beside = path.parent / "open_clip_config.json"
    if beside.is_file():  # as open_clip publishes: weights with their configuration beside
        known = architectures.load_config(beside)
        quick_gelu = bool(known["model_cfg"].get("quick_gelu"))
        return _Source(
            pretrained, path, None, Normalisation.of(known.get("preprocess_cfg") or {}), quick_gelu
        )
    quick_gelu = any(
        config.get("quick_gelu") and str(config.get("url", "")).endswith(f"/{path.name}")
        for config in (architectures.tag_config(name, t) or {} for t in architectures.tags(name))
        if "openaipublic" not in str(config.get("url", ""))  # those tell by their layout
    )
    return _Source(pretrained, path, None, architectures.common_normalisation(name), quick_gelu)


def _bundled_source(pretrained: str | None) -> _Source:
    config = architectures.bundled_config()
    normalisation = Normalisation.of(config.get("preprocess_cfg") or {})
    if pretrained is not None and pretrained != architectures.BUNDLED_TAG:
        return _Source(pretrained, _file(BUNDLED_MODEL, pretrained), None, normalisation)
    weights, words = architectures.bundled_file("model.safetensors"), architectures.bundled_file("words.txt")
    if not weights.is_file():
        raise architectures.missing_bundle(weights)
    lines = words.read_text(encoding="utf-8").splitlines() if words.is_file() else []
    vocabulary = frozenset(w for line in lines if (w := line.strip()) and not w.startswith("#"))
    return _Source(architectures.BUNDLED_TAG, weights, None, normalisation, words=vocabulary)


def _file(name: str, pretrained: str) -> Path:
    path = find_weight_file(pretrained, f"'clipseg models {name}' lists the tags, which need no file")
    if path is not None:
        return path
    raise UsageError(f"{name} has no weights with the tag '{pretrained}'", hint=_tag_hint(name, pretrained))


def _tag_hint(name: str, pretrained: str) -> str:
    known = architectures.tags(name)
    return (
        did_you_mean(pretrained, known) or ", ".join(known) or f"open_clip has none for {name}; give a file"
    )


def _load_tokenizer(name: str, config: Mapping[str, Any]) -> Callable[[list[str]], Tensor]:
    text = config["text_cfg"]
    tokenizer: Callable[[list[str]], Tensor]
    if not (text.get("hf_tokenizer_name") or text.get("hf_model_name")):
        return _simple_tokenizer(text.get("context_length", 77), text.get("tokenizer_kwargs") or {})
    if importlib.util.find_spec("transformers") is None:
        raise ModelError(
            f"the text side of {name} needs the package 'transformers', which is not installed",
            hint="pip install transformers, or choose a model that does without ('clipseg models')",
        )
    import open_clip

    tokenizer = hub.with_cache_first(
        lambda local: open_clip.get_tokenizer(name, local_files_only=local),
        f"the tokenizer of {name} ({text.get('hf_tokenizer_name')})",
    )
    return tokenizer


def _simple_tokenizer(context_length: int, options: Mapping[str, Any]) -> Callable[[list[str]], Tensor]:
    """The byte pairs of CLIP; their table is read with the first words, once for all models."""
    given = tuple(sorted(options.items()))
    return lambda texts: _byte_pairs(context_length, given)(texts)


@functools.cache
def _byte_pairs(context_length: int, options: tuple[tuple[str, Any], ...]) -> Callable[[list[str]], Tensor]:
    kind: Any = module_alone("open_clip", "tokenizer").SimpleTokenizer
    return kind(context_length=context_length, **dict(options))  # type: ignore[no-any-return]


def _build(config: Mapping[str, Any], what: str) -> Any:
    if repository := config["text_cfg"].get("hf_model_name"):  # its configuration lives on the hub
        path = hub.fetch_weights({"hf_hub": f"{repository}/config.json"}, f"the text tower of {what}")
        config = {**config, "text_cfg": {**config["text_cfg"], "hf_model_name": str(path.parent)}}
    with hub.quiet():
        return architectures.build_model(config)


def _side(size: Any) -> int:
    return int(min(size)) if isinstance(size, (tuple, list)) else int(size)


def _dense_side(net: Any, image_size: int) -> int:
    patch = patch_of(net.visual)
    return max(1, math.floor(DENSE_SCALE * image_size / patch + 0.5)) * patch
