"""Putting weights into an architecture, or saying exactly why they do not belong there."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

from clipseg_cli.errors import ModelError
from clipseg_cli.models.clip import architectures
from clipseg_cli.models.weights import hub

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from clipseg_cli.models.weights.checkpoints import Checkpoint

logger = logging.getLogger(__name__)

VISION_POSITIONS = "visual.positional_embedding"
UNUSED_ENTRIES = ("attn_mask", "position_ids")


def fit_weights(net: Any, checkpoint: Checkpoint, name: str, pretrained: str) -> None:
    """Load the weights into a model built for them; other counts of positions are resized.

    Args:
        net: a CLIP of open_clip; changed in place.
        checkpoint: what was read.
        name: of the architecture, for messages.
        pretrained: of the weights, for messages.

    Raises:
        ModelError: names or shapes differ; the hint names the architecture that would fit.
    """
    state: dict[str, Tensor] = convert_state_dict(net, dict(checkpoint.tensors))
    if "positional_embedding" in state and not hasattr(net, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    expected: dict[str, Tensor] = net.state_dict()
    for key in ("logit_scale", "logit_bias"):
        if key in state and key in expected and state[key].numel() == expected[key].numel():
            state[key] = state[key].reshape(expected[key].shape)
    if "logit_bias" in expected and "logit_scale" in state:
        state.setdefault("logit_bias", torch.zeros_like(expected["logit_bias"]))
    state = {k: v for k, v in state.items() if k in expected or k.rpartition(".")[2] not in UNUSED_ENTRIES}
    _resize_positions(net, state, expected)

    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in expected]
    misshapen = [k for k in expected if k in state and state[k].shape != expected[k].shape]
    if missing or unexpected or misshapen:
        problems = [
            *([_shapes(misshapen, state, expected)] if misshapen else []),
            *([f"missing {_few(missing)}"] if missing else []),
            *([f"unexpected {_few(unexpected)}"] if unexpected else []),
        ]
        raise ModelError(
            f"{pretrained} does not fit {name}: {'; '.join(problems)}", hint=_fitting(checkpoint, name)
        )
    spoilt = next((k for k, v in state.items() if v.is_floating_point() and not _all_finite(v)), None)
    if spoilt is not None:
        raise ModelError(
            f"{pretrained} holds NaN or infinity in {spoilt}",
            hint="download it again, or take an earlier checkpoint: such a model labels nothing",
        )
    net.load_state_dict(state, strict=True)


def _all_finite(tensor: Tensor) -> bool:
    # One sum is much faster than looking at each number; only if that overflows they are looked at.
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def _resize_positions(net: Any, state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Fit position embeddings trained at another image or text length, where only their number differs."""
    for key in (VISION_POSITIONS, "positional_embedding", "text.positional_embedding"):
        if key not in state or key not in expected or state[key].ndim != 2 or expected[key].ndim != 2:
            continue
        (n, width), (new_n, new_width) = state[key].shape, expected[key].shape
        square = math.isqrt(max(n - 1, 0)) ** 2 == n - 1
        if n < 2 or n == new_n or width != new_width or (key == VISION_POSITIONS and not square):
            continue
        state[key] = state[key].float()  # half precision does not interpolate on every CPU
        with hub.quiet():
            (resize_pos_embed if key == VISION_POSITIONS else resize_text_pos_embed)(state, net)
        logger.info("%s resized from %d to %d positions", key, n, new_n)


def _shapes(keys: list[str], state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    key = keys[0]
    more = f" (and {len(keys) - 1} more shapes)" if len(keys) > 1 else ""
    return f"{key} is {list(state[key].shape)} where {list(expected[key].shape)} is expected{more}"


def _few(keys: list[str]) -> str:
    return f"{len(keys)} key{'' if len(keys) == 1 else 's'} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"


def _fitting(checkpoint: Checkpoint, name: str) -> str:
    if any(k.startswith("vision_model.") for k in checkpoint.tensors):
        return "these weights are laid out for 'transformers'; take those laid out for open_clip or by OpenAI"
    guess = architectures.guess_architecture(checkpoint.tensors)
    return (
        f"it looks like {guess}: --model {guess}"
        if guess
        else "name the architecture it was trained in: --model"
    )
