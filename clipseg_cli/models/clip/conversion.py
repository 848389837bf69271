"""Weights of a CLIP in any layout, put into the architecture of open_clip."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from clipseg_cli.models.clip import architectures
from clipseg_cli.models.clip.vit import Clip
from clipseg_cli.models.weights import hub
from clipseg_cli.models.weights.fitting import check_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from clipseg_cli.models.weights.checkpoints import Checkpoint

logger = logging.getLogger(__name__)

VISION_POSITIONS = "visual.positional_embedding"
UNUSED_ENTRIES = ("attn_mask", "position_ids")


def fit_clip(net: Any, checkpoint: Checkpoint, name: str, pretrained: str) -> None:
    """Load the weights into a model built for them; other counts of positions are resized.

    Args:
        net: a CLIP, ours or open_clip's; changed in place.
        checkpoint: what was read.
        name: of the architecture, for messages.
        pretrained: of the weights, for messages.

    Raises:
        ModelError: names or shapes differ; the hint names the architecture that would fit.
    """
    state = dict(checkpoint.tensors) if isinstance(net, Clip) else _converted(net, checkpoint.tensors)
    expected: dict[str, Tensor] = net.state_dict()
    for key in ("logit_scale", "logit_bias"):
        if key in state and key in expected and state[key].numel() == expected[key].numel():
            state[key] = state[key].reshape(expected[key].shape)
    if "logit_bias" in expected and "logit_scale" in state:
        state.setdefault("logit_bias", torch.zeros_like(expected["logit_bias"]))
    state = {k: v for k, v in state.items() if k in expected or k.rpartition(".")[2] not in UNUSED_ENTRIES}
    _resize_positions(net, state, expected)
    hint = partial(_architecture_hint, checkpoint.tensors)
    check_weights(expected, state, source=pretrained, name=name, hint=hint)
    if isinstance(net, Clip):
        net.receive(state)
    else:
        net.load_state_dict(state, strict=False)


def _converted(net: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Under the names that a class of open_clip has for them."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state: dict[str, Tensor] = convert_state_dict(net, dict(tensors))
    if "positional_embedding" in state and not hasattr(net, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    return state


def _resize_positions(net: Any, state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Fit position embeddings trained at another image or text length, where only their number differs."""
    for key in (VISION_POSITIONS, "positional_embedding", "text.positional_embedding"):
        if key not in state or key not in expected or state[key].ndim != 2 or expected[key].ndim != 2:
            continue
        (n, width), (new_n, new_width) = state[key].shape, expected[key].shape
        square = math.isqrt(max(n - 1, 0)) ** 2 == n - 1
        if n < 2 or n == new_n or width != new_width or (key == VISION_POSITIONS and not square):
            continue
        from open_clip.model import resize_pos_embed, resize_text_pos_embed

        state[key] = state[key].float()  # half precision does not interpolate on every CPU
        with hub.quiet():
            (resize_pos_embed if key == VISION_POSITIONS else resize_text_pos_embed)(state, net)
        logger.info("%s resized from %d to %d positions", key, n, new_n)


def _architecture_hint(tensors: Mapping[str, Tensor]) -> str:
    if any(k.startswith("vision_model.") for k in tensors):
        return "these weights are laid out for 'transformers'; take those laid out for open_clip or by OpenAI"
    guess = architectures.guess_architecture(tensors)
    return (
        f"it looks like {guess}: --model {guess}"
        if guess
        else "name the architecture it was trained in: --model"
    )
