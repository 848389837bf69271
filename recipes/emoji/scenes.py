"""Scenes with exact masks: sprites composed over painted surfaces, from a seed.

A scene is an image, a map of instance numbers, and for each instance the concept it is labelled with.
Our `label` of an instance is an index into `Vocabulary.concepts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from recipes.emoji.concepts import BACKGROUNDS, COMMON, DINING_TABLE, EVALUATED_BACKGROUNDS, VOC_OBJECTS
from recipes.emoji.painting import Image, noise
from recipes.emoji.style import light, restyle, spoil, transform
from recipes.emoji.textures import ABOVE, BELOW, PAINTERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recipes.emoji.art import Sprite
    from recipes.emoji.concepts import Concept
    from recipes.emoji.vocabulary import Vocabulary

TEXTURE_SIDE = 256
STYLED_SHARE = 0.7
"""Share of the things whose style is changed; the others look as their artist drew them."""


@dataclass
class Scene:
    """One image. instances [H, W] numbers into `labels`; surfaces first, then things from back to front."""

    image: Image
    instances: NDArray[np.uint8]
    labels: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class SceneStyle:
    """What scenes look like.

    Attributes:
        augment: change the style of sprites and spoil the image.
        voc_share: share of things drawn from the PASCAL VOC names.
        voc_only: only VOC things and the nine evaluated surfaces, as in the measurement.
        low, high: sides of things in pixels, drawn log-uniformly.
        density: things per 224x224 pixels' worth of image, roughly.
    """

    augment: bool = True
    voc_share: float = 0.42
    voc_only: bool = False
    low: float = 30
    high: float = 130
    density: float = 5.0


def taste(concept: Concept) -> float:
    """How often a thing is drawn, over what its number of drawings says: common words more, odd colours less."""
    if concept.colour:
        return 1.0 if concept.parent == "car" and concept.colour in ("red", "blue", "white", "black") else 0.3
    return 2.5 if concept.name in COMMON else 1.0


class SceneMaker:
    """Composes scenes; every random choice comes from its own generator."""

    def __init__(self, vocabulary: Vocabulary, seed: int, style: SceneStyle | None = None) -> None:
        self.vocabulary = vocabulary
        self.style = style or SceneStyle()
        self.rng = np.random.default_rng(seed)
        self.textures: dict[str, list[Image]] = {}
        names = VOC_OBJECTS if self.style.voc_only else (*VOC_OBJECTS, DINING_TABLE[0])
        voc = [vocabulary.index[name] for name in names]
        self.voc = np.array(voc)
        others = sorted(set(vocabulary.drawable()) - set(voc))
        self.others = np.array(others)
        counts = [sum(map(len, vocabulary.bank[vocabulary.concepts[i].name].values())) for i in others]
        weights = np.minimum(np.sqrt(counts), 6.0) * [taste(vocabulary.concepts[i]) for i in others]
        self.other_weights = weights / weights.sum()
        voc_counts = [sum(map(len, vocabulary.bank[name].values())) for name in names]
        voc_weights = np.clip(np.array(voc_counts, float) ** 0.4, 2.0, 6.0)  # many drawings: harder to learn
        self.voc_weights = (
            np.ones(len(voc)) / len(voc) if self.style.voc_only else voc_weights / voc_weights.sum()
        )

    def make(self, size: int) -> Scene:
        """One square scene of `size` pixels."""
        scene = self._surfaces(size)
        rng, style = self.rng, self.style
        if style.augment and rng.random() < 0.25:
            self._spread(scene)
        expected = style.density * size / 224
        count = int(np.clip(rng.poisson(expected - 1) + 1, 1, 7))
        sides = np.sort(np.exp(rng.uniform(np.log(style.low), np.log(style.high), count)))[::-1]
        for side in np.minimum(sides, size):
            self._place(scene, float(side))
        if style.augment and rng.random() < 0.3:
            scene.image = light(rng, scene.image)
        if style.augment and rng.random() < 0.4:
            scene.image = spoil(rng, scene.image)
        return scene

    def _texture(self, name: str, size: int) -> Image:
        """A crop of a painted surface; painted images are kept and slowly replaced."""
        rng = self.rng
        if not self.style.augment:
            return PAINTERS[name](rng, size, size)
        shelf = self.textures.setdefault(name, [])
        if len(shelf) < 24 or rng.random() < 0.04:
            side = TEXTURE_SIDE
            shelf.append(PAINTERS[name](rng, side, side))
            if len(shelf) > 24:
                shelf.pop(int(rng.integers(24)))
        image = shelf[int(rng.integers(len(shelf)))]
        y, x = rng.integers(0, TEXTURE_SIDE - size + 1, 2)
        image = image[y : y + size, x : x + size]
        return image[:, ::-1] if rng.random() < 0.5 else image

    def _surfaces(self, size: int) -> Scene:
        rng = self.rng
        names = EVALUATED_BACKGROUNDS if self.style.voc_only else tuple(BACKGROUNDS)
        index = self.vocabulary.index
        first = names[int(rng.integers(len(names)))]
        image = np.ascontiguousarray(self._texture(first, size))
        scene = Scene(image, np.zeros((size, size), np.uint8), [index[first]])
        if rng.random() < 0.45:
            return scene
        if rng.random() < 0.7:  # a natural pair
            top = str(rng.choice([n for n in ABOVE if n in names]))
            low = str(rng.choice([n for n in BELOW if n in names and n != top]))
        else:
            top, low = (str(n) for n in rng.choice(names, 2, replace=False))
        below = self._below(size)
        scene.image = np.where(below[..., None], self._texture(low, size), self._texture(top, size))
        scene.instances[:] = below
        scene.labels = [index[top], index[low]]
        return scene

    def _spread(self, scene: Scene) -> None:
        """A patch of one more surface in the open: a puddle, a rug, a bush."""
        rng, size = self.rng, scene.image.shape[0]
        names = [n for n in BACKGROUNDS if self.vocabulary.index[n] not in scene.labels]
        name = names[int(rng.integers(len(names)))]
        inside = noise(rng, size, size, rng.uniform(1.5, 4), octaves=2) > rng.uniform(0.6, 0.8)
        scene.image = np.where(inside[..., None], self._texture(name, size), scene.image)
        scene.instances[inside] = len(scene.labels)
        scene.labels.append(self.vocabulary.index[name])

    def _below(self, size: int) -> NDArray[np.bool_]:
        """The part of the image under a horizon, sometimes a slanting or wavy one."""
        rng = self.rng
        xs = np.arange(size)
        line = rng.uniform(0.25, 0.75) * size + rng.normal(0, 0.12) * (xs - size / 2)
        if rng.random() < 0.4:
            line = line + rng.uniform(0.01, 0.06) * size * np.sin(
                xs * rng.uniform(2, 9) / size + rng.uniform(0, 6)
            )
        below = np.arange(size)[:, None] > line[None]
        if rng.random() < 0.15 and not self.style.voc_only:
            below = below.T
        return below

    def _pick(self) -> tuple[int, Sprite]:
        """A concept and one of its drawings; families are equally likely."""
        rng, vocabulary = self.rng, self.vocabulary
        if self.style.voc_only or rng.random() < self.style.voc_share:
            number = int(rng.choice(self.voc, p=self.voc_weights))
        else:
            number = int(rng.choice(self.others, p=self.other_weights))
        families = list(vocabulary.bank[vocabulary.concepts[number].name].values())
        sprites = families[int(rng.integers(len(families)))]
        return number, sprites[int(rng.integers(len(sprites)))]

    def _place(self, scene: Scene, side: float) -> None:
        rng, vocabulary = self.rng, self.vocabulary
        number, sprite = self._pick()
        concept = vocabulary.concepts[number]
        styled = self.style.augment and rng.random() < STYLED_SHARE
        sprite = transform(rng, sprite, side, strong=styled)
        if styled:
            sprite = restyle(rng, sprite, concept.hue)
        if concept.parent and rng.random() < 0.3:
            number = vocabulary.index[concept.parent]
        spot = self._spot(scene, sprite.shape[0], sprite.shape[1])
        if spot is None:
            return
        if rng.random() < 0.25:
            cast_shadow(scene.image, spot, sprite.shape[0], sprite.shape[1], rng.uniform(0.15, 0.45))
        paste(scene, sprite, spot, number)

    def _spot(self, scene: Scene, h: int, w: int) -> tuple[int, int] | None:
        """A top-left corner that keeps at least two thirds in the image and hides little that is there."""
        size = scene.image.shape[0]
        grounds = sum(label >= len(self.vocabulary.concepts) - len(PAINTERS) for label in scene.labels[:3])
        for attempt in range(8):
            out_y, out_x = (h // 6, w // 6) if self.style.augment else (h // 12, w // 12)
            y = int(self.rng.integers(-out_y, max(size - h + out_y, 1 - out_y)))
            x = int(self.rng.integers(-out_x, max(size - w + out_x, 1 - out_x)))
            taken = scene.instances[max(y, 0) : y + h, max(x, 0) : x + w] >= grounds
            if taken.mean() < (0.08 if attempt < 4 else 0.25):
                return y, x
        return None


def cast_shadow(image: Image, spot: tuple[int, int], h: int, w: int, depth: float) -> None:
    """Darken the surface a little under a thing."""
    size = image.shape[0], image.shape[1]
    y, x = spot[0] + int(0.95 * h), spot[1] + w // 2
    half_w, half_h = int(0.5 * w), max(2, int(0.09 * h))
    top, low = max(y - half_h, 0), min(y + half_h, size[0])
    left, right = max(x - half_w, 0), min(x + half_w, size[1])
    if top >= low or left >= right:
        return
    ys, xs = np.mgrid[top:low, left:right]
    weight = np.clip(1 - ((ys - y) / half_h) ** 2 - ((xs - x) / max(half_w, 1)) ** 2, 0, 1) * depth
    image[top:low, left:right] = (image[top:low, left:right] * (1 - weight[..., None])).astype(np.uint8)


def paste(scene: Scene, sprite: Sprite, spot: tuple[int, int], label: int) -> None:
    """Lay a sprite over the scene; pixels that are mostly covered become its instance."""
    (height, width), (y, x) = scene.image.shape[:2], spot
    top, left = max(y, 0), max(x, 0)
    low, right = min(y + sprite.shape[0], height), min(x + sprite.shape[1], width)
    if top >= low or left >= right:
        return
    part = sprite[top - y : low - y, left - x : right - x].astype(np.float32)
    alpha = part[..., 3:] / 255
    under = scene.image[top:low, left:right]
    scene.image[top:low, left:right] = (part[..., :3] * alpha + under * (1 - alpha)).astype(np.uint8)
    scene.instances[top:low, left:right][alpha[..., 0] > 0.5] = len(scene.labels)
    scene.labels.append(label)
