"""Words become a classifier: every word in every template through the text tower, averaged, cached on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from clipseg_cli.errors import OutputError
from clipseg_cli.models.clip.vit import Clip
from clipseg_cli.models.weights.precision import held_type, hold_weights_in
from clipseg_cli.ops.similarity import average_prompts
from clipseg_cli.utils.files import write_bytes
from clipseg_cli.utils.threads import map_single_threaded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

PROMPTS_PER_BATCH = 256
"""One thread's work; the same everywhere, so that the embeddings are."""


def cache_folder() -> Path:
    """Where embeddings are kept: $CLIPSEG_CACHE, else the user's cache folder."""
    chosen = os.environ.get("CLIPSEG_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("clipseg", appauthor=False))


def embed_words(
    model: Any,
    tokenizer: Callable[[list[str]], Tensor],
    prompts: Sequence[Sequence[str]],
    *,
    fingerprint: str,
    device: torch.device,
) -> Tensor:
    """Unit-length embedding of each word.

    Args:
        model: a CLIP in eval mode. Words are computed in the type in which its image tower is held.
        tokenizer: its tokenizer.
        prompts: [Q][T] every word in every template.
        fingerprint: of the weights; part of the cache key.
        device: where the model is.

    Returns:
        [Q, D] float32 on `device`, without gradient.
    """
    dtype = held_type(model.visual)
    embeds = cached_words(fingerprint, prompts, dtype)
    if embeds is None:
        embeds = compute_embeds(model, tokenizer, prompts, device=device).cpu()
        _keep(_cache_file(fingerprint, prompts, dtype), embeds)
    return embeds.to(device)


def cached_words(
    fingerprint: str, prompts: Sequence[Sequence[str]], dtype: torch.dtype = torch.float32
) -> Tensor | None:
    """What `embed_words` kept for these weights and prompts, [Q, D] on the CPU; None if it has to be computed.

    `dtype` is the type that they were computed in.
    """
    return _read(_cache_file(fingerprint, prompts, dtype), len(prompts))


@torch.inference_mode()
def compute_embeds(
    model: nn.Module,
    tokenizer: Callable[[list[str]], Tensor],
    prompts: Sequence[Sequence[str]],
    *,
    device: torch.device,
) -> Tensor:
    """The embeddings of `embed_words` without the cache."""
    words = embed_prompts(model, tokenizer, prompts, device=device)

    @torch.inference_mode()
    def average(embeds: Tensor) -> Tensor:
        return torch.stack([average_prompts(word) for word in embeds])

    return map_single_threaded(average, [words], device)[0]


@torch.inference_mode()
def embed_prompts(
    model: nn.Module,
    tokenizer: Callable[[list[str]], Tensor],
    prompts: Sequence[Sequence[str]],
    *,
    device: torch.device,
) -> Tensor:
    """Raw outputs [Q, T, D] of the text tower for every word in every template; arguments as for `embed_words`.

    The text tower computes in the type in which the weights of the image tower are held.
    """
    dtype = _hold_text(model)
    flat = [prompt for word in prompts for prompt in word]
    # Prompts of one length share a batch, so that short ones are not padded to the longest.
    tokens = tokenizer(flat)
    lengths = (tokens != 0).sum(dim=1)
    order = lengths.argsort(stable=True)

    @torch.inference_mode()
    def embed(batch: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return encode_text(model, tokens[batch].to(device)).float()

    parts = map_single_threaded(embed, order.split(PROMPTS_PER_BATCH), device)
    embeds: Tensor = torch.cat(parts)[order.argsort().to(device)].unflatten(0, (len(prompts), -1))
    return embeds


def encode_text(model: Any, tokens: Tensor) -> Tensor:
    """`model.encode_text` on as many positions as the prompts need: [P, L] token ids -> [P, D].

    Under a causal mask nothing behind the end-of-text token can reach it, so cutting the empty rest of the 77
    positions changes nothing but the time (about a sixth for ordinary prompts). Text towers of another kind
    (bidirectional, pooled otherwise, from transformers) are called as they are.
    """
    length = int((tokens != 0).sum(dim=1).max())
    if isinstance(model, Clip):
        return model.encode_text(tokens[:, :length])
    causal = (
        getattr(model, "attn_mask", None) is not None and getattr(model, "text_pool_type", "") == "argmax"
    )
    if not causal or length >= tokens.shape[1]:
        return model.encode_text(tokens)  # type: ignore[no-any-return]
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]  # [P, L, W]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)[torch.arange(len(x), device=x.device), tokens.argmax(dim=1)]  # [P, W]
    projection = model.text_projection
    if projection is None:
        return x  # type: ignore[no-any-return]
    return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection  # type: ignore[no-any-return]


def _hold_text(model: Any) -> torch.dtype:
    """Cast the text tower to the type in which the image tower is held, and give it."""
    dtype = held_type(model.visual)
    if isinstance(model, Clip):
        model.load_text()
    for name, part in model.named_children():
        if name != "visual":
            hold_weights_in(part, dtype)
    return dtype


def _cache_file(fingerprint: str, prompts: Sequence[Sequence[str]], dtype: torch.dtype) -> Path:
    if dtype != torch.float32:  # that of float32 is the one that students know by the fingerprint alone
        fingerprint = f"{fingerprint} {dtype}"
    return cache_folder() / "text" / f"{_key(fingerprint, prompts)}.safetensors"


def _key(fingerprint: str, prompts: Sequence[Sequence[str]]) -> str:
    digest = hashlib.sha256(fingerprint.encode())
    for word in prompts:
        # Lengths first, so that no choice of names can imitate another list.
        digest.update(f"[{len(word)}]".encode())
        for prompt in word:
            raw = prompt.encode()
            digest.update(f"{len(raw)}:".encode() + raw)
    return digest.hexdigest()[:40]


def _read(path: Path, count: int) -> Tensor | None:
    """A cached result, or None if there is none that can be used (a damaged one is made anew)."""
    try:
        embeds = load(path.read_bytes())["text_embeds"]
    except (OSError, KeyError, SafetensorError):
        return None
    if embeds.ndim != 2 or len(embeds) != count or embeds.dtype != torch.float32:
        return None
    # They were unit vectors when they were kept.
    return embeds if torch.allclose(embeds.norm(dim=1), torch.ones(count), atol=1e-3) else None


def _keep(path: Path, embeds: Tensor) -> None:
    try:
        write_bytes(path, save({"text_embeds": embeds.contiguous()}))
    except OutputError:
        # A cache that cannot be written costs time in the next run, never a result.
        return
