"""Texts for a training step: which concepts, which of their words, in which template."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from open_clip import get_tokenizer
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from recipes.emoji.concepts import BACKGROUNDS, DINING_TABLE, VOC_OBJECTS, Concept

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCENE_TEMPLATES = (
    "there is a {} in the scene.", "there is the {} in the scene.", "this is a {} in the scene.",
    "this is the {} in the scene.", "this is one {} in the scene.", "a photo of a {} in the scene.",
    "a photo of the small {}.", "a picture of a {}.", "an emoji of a {}.", "a {}.", "{}", "the {}.",
    "a photo of {}.", "a photo of many {}.", "an image of a {}.", "a clipart of a {}.", "an icon of a {}.",
    "a photo of a big {}.", "a photo of a medium {}.", "a photo of a small {}.", "itap of a {}.",
)  # fmt: skip
TEMPLATES = (*(str(t("{}")) for t in OPENAI_IMAGENET_TEMPLATES), *SCENE_TEMPLATES)
TEXTS_PER_STEP = 160
FAVOUR = 5.0
"""How much more often an evaluated concept serves as a wrong answer."""


class TextSampler:
    """Chooses the candidate texts of a step and tokenises them."""

    def __init__(self, concepts: list[Concept], context_length: int, seed: int) -> None:
        self.concepts = concepts
        self.tokenizer = get_tokenizer("ViT-B-32", context_length=context_length)
        self.rng = np.random.default_rng(seed)
        self.progress = 0.0
        favoured = {*VOC_OBJECTS, DINING_TABLE[0], *BACKGROUNDS}
        weights = np.array([FAVOUR if c.name in favoured else 0.4 if c.colour else 1.0 for c in concepts])
        self.weights = weights / weights.sum()
        self.siblings: dict[str, list[int]] = {}
        for i, concept in enumerate(concepts):
            if concept.colour:
                self.siblings.setdefault(concept.parent, []).append(i)
        self._cached = lru_cache(maxsize=200_000)(self._tokenise)

    def token_ids(self) -> list[int]:
        """Every token that any word or template contains, with start, end and padding."""
        words = [word for concept in self.concepts for word in concept.words]
        texts = [*words, *(f" {word}" for word in words), *(t.format("cat") for t in TEMPLATES)]
        seen = {0} | set(self.tokenizer([*texts, *(f"a {w}." for w in words)]).unique().tolist())
        return sorted(seen)

    def candidates(self, present: NDArray[np.int64]) -> NDArray[np.int64]:
        """Concept numbers for a step: those present, other colours of a present thing, and random others."""
        chosen = {int(i) for i in np.unique(present) if i >= 0}
        for i in list(chosen):
            rivals = self.siblings.get(self.concepts[i].parent, []) if self.concepts[i].colour else []
            chosen.update(int(r) for r in self.rng.permutation(rivals)[:4])
        room = max(TEXTS_PER_STEP - len(chosen), 16)
        drawn = self.rng.choice(len(self.concepts), room, replace=False, p=self.weights)
        return np.array(sorted(chosen | set(drawn.tolist())))

    def tokens(self, candidates: NDArray[np.int64]) -> Tensor:
        """Padded ids [T, L] of one text for each candidate, no longer than the longest needs."""
        rows = []
        for i in candidates:
            words = self.concepts[i].words
            ease = 0.5 * max(0.0, 1 - 5 * self.progress)  # bare names first, then synonyms and templates
            word = words[0] if self.rng.random() < 0.5 + ease else words[int(self.rng.integers(len(words)))]
            bare = self.rng.random() < 0.45 + ease
            template = "{}" if bare else TEMPLATES[int(self.rng.integers(len(TEMPLATES)))]
            rows.append(self._cached(template.format(word)))
        length = max(len(row) for row in rows)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids

    def plain(self, words: list[str]) -> Tensor:
        """Ids of words as they are."""
        ids: Tensor = self.tokenizer(words)
        return ids

    def _tokenise(self, text: str) -> tuple[int, ...]:
        ids = self.tokenizer(text)[0]
        return tuple(ids[: int(ids.argmax()) + 1].tolist())
