"""Words through the text tower: exact, cached, and never from the wrong cache entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import open_clip
import pytest
import torch

from clipseg_cli.data.prompts import build_prompts, load_templates
from clipseg_cli.models.clip import text_classifier
from clipseg_cli.models.clip.text_classifier import compute_embeds, embed_words, encode_text

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
WORDS = ["cat", "a rather long name of a thing that nobody has ever seen before", "狗", "🤡"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def embed(clip, words=WORDS, templates=("{}", "a photo of a {}."), fingerprint="f"):
    prompts = build_prompts(words, templates)
    return embed_words(clip.model, open_clip.tokenize, prompts, fingerprint=fingerprint, device=CPU)


@torch.inference_mode()
def test_cutting_the_empty_positions_changes_nothing(tiny_clip) -> None:
    tokens = open_clip.tokenize([f"a photo of a {word}." for word in WORDS])
    short = encode_text(tiny_clip.model, tokens)
    torch.testing.assert_close(short, tiny_clip.model.encode_text(tokens), atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_each_word_is_the_average_of_its_own_prompts(tiny_clip) -> None:
    """Sorting prompts by length and batching must not mix them up."""
    templates = load_templates("imagenet")
    together = compute_embeds(
        tiny_clip.model, open_clip.tokenize, build_prompts(WORDS, templates), device=CPU
    )
    assert together.shape == (len(WORDS), 32)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(WORDS)))
    for word, row in zip(WORDS, together, strict=True):
        raw = tiny_clip.model.encode_text(open_clip.tokenize([t.replace("{}", word) for t in templates]))
        unit = torch.nn.functional.normalize(raw, dim=1).mean(dim=0)
        torch.testing.assert_close(row, unit / unit.norm(), atol=1e-5, rtol=0)


def test_second_time_comes_from_the_cache(tiny_clip, cache, monkeypatch) -> None:
    first = embed(tiny_clip)
    monkeypatch.setattr(text_classifier, "compute_embeds", lambda *a, **k: pytest.fail("not cached"))
    assert torch.equal(embed(tiny_clip), first)


@pytest.mark.parametrize(
    "change",
    [
        {"words": WORDS[:3]},
        {"words": WORDS[::-1]},
        {"templates": ("a photo of a {}.", "{}")},
        {"templates": ("{}",)},
        {"fingerprint": "other weights"},
    ],
)
def test_anything_else_is_another_entry(tiny_clip, cache, monkeypatch, change) -> None:
    embed(tiny_clip)
    calls = []
    real = compute_embeds
    monkeypatch.setattr(text_classifier, "compute_embeds", lambda *a, **k: calls.append(1) or real(*a, **k))
    embed(tiny_clip, **change)
    assert calls


@pytest.mark.parametrize("damage", [b"", b"not a file of tensors", None])
def test_damaged_entry_is_made_anew(tiny_clip, cache, damage) -> None:
    first = embed(tiny_clip)
    (entry,) = cache.rglob("*.safetensors")
    entry.write_bytes(entry.read_bytes()[:-20] if damage is None else damage)
    assert torch.equal(embed(tiny_clip), first)


def test_cache_that_cannot_be_written_costs_nothing_but_time(tiny_clip, tmp_path, monkeypatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("CLIPSEG_CACHE", str(blocked))
    assert embed(tiny_clip).shape == (len(WORDS), 32)


def test_a_thousand_names_in_one_go(tiny_clip, cache) -> None:
    assert embed(tiny_clip, words=[f"thing {i}" for i in range(1000)], templates=("{}",)).shape == (1000, 32)
