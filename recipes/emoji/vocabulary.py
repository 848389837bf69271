"""What is learnt, and the drawings of it: concepts that enough art sets draw, potted plants and tables of our own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np

from recipes.emoji.art import (
    HELDOUT_FAMILIES,
    MIN_FAMILIES,
    SPRITE_SIDE,
    TRAIN_FAMILIES,
    Sprite,
    SpriteBank,
    load_sprites,
)
from recipes.emoji.concepts import (
    COLOURS,
    DINING_TABLE,
    Concept,
    coloured_variants,
    read_things,
    surfaces,
)
from recipes.emoji.style import recolour
from recipes.emoji.voc_table import draw_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recipes.emoji.painting import Rng

TABLES = 60


@dataclass
class Vocabulary:
    """The concepts that are learnt, their drawings, and which are kinds of which."""

    concepts: list[Concept]
    bank: SpriteBank
    families: tuple[str, ...]

    @cached_property
    def index(self) -> dict[str, int]:
        """Concept name -> number."""
        return {concept.name: i for i, concept in enumerate(self.concepts)}

    @cached_property
    def related(self) -> NDArray[np.bool_]:
        """[C, C]: True where one concept is an ancestor of the other: neither is wrong for the other."""
        size = len(self.concepts)
        table = np.zeros((size, size), bool)
        for i, concept in enumerate(self.concepts):
            parent = concept.parent
            while parent:
                j = self.index[parent]
                table[i, j] = table[j, i] = True
                parent = self.concepts[j].parent
        return table

    def drawable(self) -> list[int]:
        """Numbers of the concepts that have drawings."""
        return [i for i, concept in enumerate(self.concepts) if self.bank.get(concept.name)]


def load_vocabulary(families: tuple[str, ...] = TRAIN_FAMILIES, side: int = SPRITE_SIDE) -> Vocabulary:
    """Concepts drawn by enough training families, with their sprites in the named families."""
    things = read_things()
    known = load_sprites(things, TRAIN_FAMILIES, side=SPRITE_SIDE)
    things_kept = [t for t in things if len(known[t.name]) >= MIN_FAMILIES]
    bank = (
        known
        if families == TRAIN_FAMILIES and side == SPRITE_SIDE
        else load_sprites(things, families, side=side)
    )
    bank = {t.name: bank[t.name] for t in things_kept}
    _add_potted_plants(bank)
    things_kept.append(Concept(DINING_TABLE[0], DINING_TABLE))
    bank[DINING_TABLE[0]] = _dining_tables(families)
    variants = coloured_variants(things_kept)
    for variant in variants:
        bank[variant.name] = {
            family: [recolour(sprite, *COLOURS[variant.colour]) for sprite in sprites]
            for family, sprites in bank[variant.parent].items()
        }
    return Vocabulary([*things_kept, *variants, *surfaces()], bank, families)


def heldout_vocabulary(side: int = SPRITE_SIDE) -> Vocabulary:
    """The same concepts in the art that training never sees."""
    return load_vocabulary(HELDOUT_FAMILIES, side)


def _add_potted_plants(bank: SpriteBank) -> None:
    """Few sets draw a potted plant: set flowers and herbs of the other families into painted pots."""
    rng = np.random.default_rng(7)
    for plant in ("flower", "tulip", "sunflower", "cactus", "herb", "seedling", "rose"):
        for family, sprites in bank.get(plant, {}).items():
            if family in HELDOUT_FAMILIES:
                continue
            for sprite in sprites[:2]:
                bank["potted plant"].setdefault(family, []).append(_pot(rng, sprite))


def _dining_tables(families: tuple[str, ...]) -> dict[str, list[Sprite]]:
    """Drawn tables, others for art that is held out."""
    rng = np.random.default_rng(len(families))
    return {"drawn": [_smaller(draw_table(rng)) for _ in range(TABLES)]}


def _smaller(sprite: Sprite) -> Sprite:
    """At the size of the other drawings."""
    scale = SPRITE_SIDE / max(sprite.shape[:2])
    size = round(sprite.shape[1] * scale), round(sprite.shape[0] * scale)
    return np.asarray(cv2.resize(sprite, size, interpolation=cv2.INTER_AREA), np.uint8)


def _pot(rng: Rng, plant: Sprite) -> Sprite:
    """A plant standing in a pot."""
    h, w = plant.shape[:2]
    pot_h, pot_w = int(rng.uniform(0.4, 0.6) * h), int(rng.uniform(0.7, 1.0) * w)
    canvas = np.zeros((h + int(0.75 * pot_h), max(w, pot_w) + 4, 4), np.uint8)
    x0 = (canvas.shape[1] - w) // 2
    canvas[:h, x0 : x0 + w] = plant
    top, middle, narrow = canvas.shape[0] - pot_h, canvas.shape[1] // 2, rng.uniform(0.3, 0.45)
    tone = np.array([196, 110, 64]) if rng.random() < 0.6 else rng.uniform(40, 240, 3)
    body = np.array([[-0.45, 0], [0.45, 0], [narrow, 1], [-narrow, 1]]) * [pot_w, pot_h] + [middle, top]
    cv2.fillPoly(canvas, [body.astype(np.int32)], [*tone.tolist(), 255], cv2.LINE_AA)
    rim = (middle - pot_w // 2, top), (middle + pot_w // 2, top + pot_h // 4)
    cv2.rectangle(canvas, *rim, [*np.clip(tone * 1.15, 0, 255).tolist(), 255], -1)
    return canvas
