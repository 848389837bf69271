"""Images like those of PASCAL VOC, composed: places with the things that belong there, seen from eye height.

An image is a place (a pasture, a street, a room ...), its surfaces above and below a horizon, and one to five
things that stand, swim or fly where such things do. What is no VOC class is background, as in VOC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from recipes.emoji.concepts import COLOURS
from recipes.emoji.scenes import Scene, cast_shadow, paste
from recipes.emoji.style import recolour, transform
from recipes.emoji.textures import PAINTERS
from recipes.emoji.voc_table import TABLE_TOP, draw_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recipes.emoji.art import Sprite
    from recipes.emoji.painting import Image, Rng
    from recipes.emoji.vocabulary import Vocabulary

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The classes in VOC's order: the label of a class is its place, from 1."""

BOTTLE, TABLE = VOC_CLASSES.index("bottle") + 1, VOC_CLASSES.index("diningtable") + 1
VOID = 255
ART_NAMES = {"pottedplant": "potted plant"}
FLYERS = ("aeroplane", "bird", "sun", "cloud")
FAR = ("tree", "pine", "palm tree", "house", "building", "mountain")
"""What stands near the horizon, behind the rest."""

DISTRACTOR_SHARE = 0.25
LARGEST = 0.6
"""The longest side of a thing, as a share of the image's longer side."""

RELATIVE_SIDES = {
    "aeroplane": 1.1, "bird": 0.75, "bottle": 0.72, "bus": 1.25, "car": 1.05, "cat": 0.85, "dog": 0.9, "cow": 1.05,
    "diningtable": 1.35, "pottedplant": 0.85, "sheep": 0.95, "sofa": 1.25, "train": 1.25, "tvmonitor": 0.95,
    "tree": 1.1, "palm tree": 1.2, "pine": 1.1, "house": 1.1, "building": 1.2, "mountain": 1.3,
    "banana": 0.5, "book": 0.6, "clock": 0.6, "crab": 0.6, "football": 0.5, "gift": 0.6, "red apple": 0.5, "rock": 0.7,
    "suitcase": 0.7, "teapot": 0.6, "traffic light": 0.8, "tulip": 0.6, "sun": 0.6,
}  # fmt: skip
"""How large a thing is beside the others; 1 if absent."""


@dataclass(frozen=True)
class Place:
    """Where an image plays.

    Attributes:
        above, below: surfaces, one of each is taken; an empty `below` is an image of one surface.
        things: the VOC classes at home here.
        others: things of no VOC class that may stand here.
        horizon: where it may lie, as shares of the height.
    """

    above: tuple[str, ...]
    below: tuple[str, ...]
    things: tuple[str, ...]
    others: tuple[str, ...]
    horizon: tuple[float, float] = (0.3, 0.55)


TREES = ("tree", "pine", "house", "mountain")
HOUSEHOLD = ("clock", "book", "guitar", "teapot", "gift", "suitcase", "banana", "red apple")
PLACES = (
    Place(("sky", "sky", "sunset"), ("grass", "grass", "ground"),
          ("cow", "horse", "sheep", "dog", "bird", "person"), TREES),
    Place(("sky", "brick wall"), ("road",), ("car", "bus", "bicycle", "motorbike", "person", "dog"),
          ("tree", "traffic light", "building", "house")),
    Place(("sky", "sky", "sunset"), ("grass", "ground", "snow"), ("train", "person", "car"), TREES),
    Place(("sky", "sunset"), ("water",), ("boat", "bird", "aeroplane"), ("mountain", "sun", "cloud"), (0.3, 0.5)),
    Place(("sky",), ("sand",), ("person", "dog", "horse", "bicycle", "bird"), ("palm tree", "umbrella", "crab")),
    Place(("sky",), ("road", "grass"), ("aeroplane", "bus", "person"), ("building", "cloud"), (0.5, 0.65)),
    Place(("sky", "sunset", "night sky"), (), ("aeroplane", "bird"), ("cloud", "sun")),
    Place(("background", "background", "brick wall"), ("wood", "tiles"),
          ("chair", "sofa", "diningtable", "tvmonitor", "pottedplant", "cat", "dog", "person", "bottle"), HOUSEHOLD),
    Place(("background", "wood", "tiles"), (), ("bottle", "pottedplant", "tvmonitor", "cat", "chair"), HOUSEHOLD),
    Place(("background", "brick wall", "tiles"), ("wood",), ("diningtable", "chair", "bottle", "person"),
          HOUSEHOLD, (0.4, 0.6)),
    Place(("sky", "brick wall"), ("grass", "tiles"),
          ("bicycle", "motorbike", "cat", "dog", "pottedplant", "chair"), ("tree", "tulip", "house", "football")),
    Place(("sky", "sky", "night sky"), ("snow",), ("person", "dog", "train", "bird", "car"),
          ("pine", "snowman", "house")),
    Place(("grass", "sand", "snow"), (), ("bird", "dog", "cat", "sheep"), ("tulip", "rock", "football")),
)  # fmt: skip


@dataclass
class VocImage:
    """One image and its truth.

    Attributes:
        image: RGB, uint8 [H, W, 3].
        classes: 0 background, 1..20, 255 void, uint8 [H, W].
        objects: 0 background, 1.. the things, 255 void, uint8 [H, W].
    """

    image: Image
    classes: NDArray[np.uint8]
    objects: NDArray[np.uint8]


@dataclass
class _Actor:
    """A thing before it is placed.

    Attributes:
        label: 1..20, or 0 for what is no VOC class.
        sprite: its pixels, in the final size.
        foot: how far down its foot is, as a share of the height.
        flies: casts no shadow and stays below the upper edge.
        on_table: stands on the table of the image, if it has one.
    """

    label: int
    sprite: Sprite
    foot: float
    flies: bool
    on_table: bool = False


@dataclass
class VocComposer:
    """Composes image after image; `counts` remembers in how many each class was, rare ones come first.

    Attributes:
        vocabulary: words and art, drawn about as large as the things will be.
        long_side: the longer side of an image, from and to, in pixels.
    """

    vocabulary: Vocabulary
    long_side: tuple[int, int] = (256, 320)
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(VOC_CLASSES), np.int64))

    def make(self, rng: Rng) -> VocImage:
        """One image; the class that was seen least has the leading part."""
        while True:
            image = self._compose(rng)
            seen = np.unique(image.classes)
            seen = seen[(seen > 0) & (seen < VOID)]
            if len(seen):
                self.counts[seen - 1] += 1
                return image

    def _compose(self, rng: Rng) -> VocImage:
        height, width = _shape(rng, self.long_side)
        place, cast = self._cast(rng)
        horizon = rng.uniform(*place.horizon) if place.below else 0.0
        scene = Scene(_surfaces(rng, place, height, width, horizon), np.zeros((height, width), np.uint8), [0])
        long = max(height, width)
        actors = [self._actor(rng, place, name, len(cast), long, horizon) for name in cast]
        if rng.random() < DISTRACTOR_SHARE:
            other = str(rng.choice(place.others))
            actors.append(self._actor(rng, place, other, len(cast) + 1, long, horizon))
        for actor in actors:
            if actor.label == BOTTLE and "diningtable" in cast and rng.random() < 0.75:
                actor.foot, actor.on_table = 1.0, True  # placed after the table
        areas = [0]
        for actor in sorted(actors, key=lambda actor: actor.foot):
            _place(rng, scene, areas, actor)
        return VocImage(_light(rng, scene.image), *truth(scene, max(1, round(long / 300))))

    def _cast(self, rng: Rng) -> tuple[Place, list[str]]:
        """A place and the VOC classes that appear, some of them twice."""
        fewest = np.flatnonzero(self.counts == self.counts.min())
        lead = VOC_CLASSES[int(rng.choice(fewest))]
        homes = [place for place in PLACES if lead in place.things]
        place = homes[int(rng.integers(len(homes)))]
        number = int(rng.choice([1, 2, 3, 4, 5], p=[0.10, 0.28, 0.32, 0.21, 0.09]))
        surplus = (
            np.array([self.counts[VOC_CLASSES.index(name)] for name in place.things]) - self.counts.min()
        )
        weights = np.exp(-surplus.astype(float))
        cast = [lead]
        while len(cast) < number:
            name = str(rng.choice(place.things, p=weights / weights.sum()))
            if name not in cast or rng.random() < 0.2:
                cast.append(name)
        return place, cast

    def _actor(self, rng: Rng, place: Place, name: str, number: int, long: int, horizon: float) -> _Actor:
        """Choose a drawing, its size and how far down it stands; with more things all are smaller."""
        settles = horizon > 0 and (name == "bird" or (name == "aeroplane" and "water" not in place.below))
        flies = name in FLYERS and not (settles and rng.random() < 0.3)
        if flies:
            foot = rng.uniform(0.3, 0.95) * (horizon or 1.0)
        elif name in FAR:
            foot = horizon + rng.uniform(0.02, 0.12)
        else:
            foot = rng.uniform(horizon + 0.1, 0.98) if horizon else rng.uniform(0.45, 0.98)
        near = 1.0 if flies else 0.8 + 0.35 * (foot - horizon) / (1 - horizon)
        side = rng.uniform(0.36, 0.54) * (1.12 - 0.12 * number) * near * RELATIVE_SIDES.get(name, 1.0)
        sprite = transform(rng, self._drawing(rng, name), np.clip(side, 0.17, LARGEST) * long, strong=False)
        label = VOC_CLASSES.index(name) + 1 if name in VOC_CLASSES else 0
        return _Actor(label, sprite, foot, flies)

    def _drawing(self, rng: Rng, name: str) -> Sprite:
        if name == "diningtable":
            return draw_table(rng)
        families = list(self.vocabulary.bank[ART_NAMES.get(name, name)].values())
        sprites = families[int(rng.integers(len(families)))]
        if name == "person" and rng.random() < 0.75:  # rather whole people than faces
            sprites = [s for s in sprites if s.shape[0] > 1.4 * s.shape[1]] or sprites
        sprite = sprites[int(rng.integers(len(sprites)))]
        if name in ("car", "bus", "sofa", "chair") and rng.random() < 0.35:
            sprite = recolour(sprite, *COLOURS[str(rng.choice(list(COLOURS)))])
        return largest_part(sprite) if name in ("aeroplane", "sofa") else sprite


def largest_part(sprite: Sprite) -> Sprite:
    """A drawing without what lies apart from it: the runway under an aeroplane, the lamp beside a sofa."""
    count, parts, facts, _ = cv2.connectedComponentsWithStats((sprite[..., 3] > 24).astype(np.uint8))
    if count <= 2:
        return sprite
    number = 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax())
    x, y, w, h = facts[number, :4]
    kept = np.where((parts == number)[..., None], sprite, 0)
    return np.ascontiguousarray(kept[y : y + h, x : x + w])


def _shape(rng: Rng, long_side: tuple[int, int]) -> tuple[int, int]:
    """Height and width; two images of three are wider than high."""
    long = int(rng.integers(long_side[0], long_side[1] + 1))
    short = round(long / float(rng.choice([4 / 3, 4 / 3, 3 / 2, 3 / 2, 5 / 4, 1.0, 16 / 9])))
    return (short, long) if rng.random() < 0.68 else (long, short)


def _surfaces(rng: Rng, place: Place, height: int, width: int, horizon: float) -> Image:
    """The surface above, and below the horizon the other one; on land the border may be hilly."""
    above = str(rng.choice(place.above))
    image = PAINTERS[above](rng, height, width)
    if not place.below:
        return image
    below = str(rng.choice([name for name in place.below if name != above]))
    xs = np.arange(width)
    line = np.full(width, horizon * height)
    if above in ("sky", "sunset", "night sky") and below != "water":
        line += rng.uniform(0, 0.03) * height * np.sin(xs / width * rng.uniform(2, 7) + rng.uniform(0, 6))
        line += rng.normal(0, 0.03) * (xs - width / 2)
    first = max(int(line.min()), 0)
    lower = np.zeros_like(image)
    lower[first:] = PAINTERS[below](rng, height - first, width)
    return np.where((np.arange(height)[:, None] >= line)[..., None], lower, image)


def _place(rng: Rng, scene: Scene, areas: list[int], actor: _Actor) -> None:
    """Lay a thing where it hides little of the others; leave it out where there is no room.

    `areas` are the pixels that every instance had before others hid it; `areas[0]` is unused.
    """
    height, width = scene.image.shape[:2]
    h, w = actor.sprite.shape[:2]
    solid = actor.sprite[..., 3] > 127
    highest = height // 50 if actor.flies else -(h // 10)
    for _ in range(16):
        y = round((actor.foot + rng.normal(0, 0.02)) * height) - h
        y = max(min(y, height - h + h // 12), highest)
        x = int(rng.integers(-(w // 10), max(width - w + w // 10, 1 - w // 10)))
        if actor.on_table and TABLE in scene.labels:
            x, y = _table_spot(rng, scene, h, w)
        if _hides_little(scene, areas, solid, y, x):
            break
    else:
        return
    if not actor.flies and rng.random() < 0.7:
        cast_shadow(scene.image, (y, x), h, w, rng.uniform(0.2, 0.45))
    paste(scene, actor.sprite, (y, x), actor.label)
    areas.append(int((scene.instances == len(scene.labels) - 1).sum()))


def _table_spot(rng: Rng, scene: Scene, h: int, w: int) -> tuple[int, int]:
    """Where a sprite of h by w pixels stands on the first table: its left and its upper edge."""
    ys, xs = np.nonzero(scene.instances == scene.labels.index(TABLE))
    x, y = xs.min() + rng.uniform(0.2, 0.8) * np.ptp(xs), ys.min() + TABLE_TOP * np.ptp(ys)
    return int(x) - w // 2, int(y) - h


def _hides_little(scene: Scene, areas: list[int], solid: NDArray[np.bool_], y: int, x: int) -> bool:
    """Whether a mask at (y, x) leaves 85 % of every thing visible and three quarters of itself in the image."""
    height, width = scene.instances.shape
    top, left = max(y, 0), max(x, 0)
    part = solid[top - y : height - y, left - x : width - x]
    if part.sum() < 0.75 * solid.sum():
        return False
    under = scene.instances[top : top + part.shape[0], left : left + part.shape[1]][part]
    now = np.bincount(scene.instances.ravel(), minlength=len(areas))
    hidden = np.bincount(under, minlength=len(areas))
    return bool(np.all((now - hidden)[1:] >= 0.85 * np.array(areas[1:])))


def truth(scene: Scene, inner: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Class map and object map, uint8 [H, W]: void are the outer `inner` pixels of a thing and twice as many around."""
    labels = np.array(scene.labels, np.uint8)
    number = np.where(labels > 0, np.cumsum(labels > 0), 0).astype(np.uint8)
    classes, objects = labels[scene.instances], number[scene.instances]
    near = np.ones((2 * inner + 1, 2 * inner + 1), np.uint8)
    far = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4 * inner + 1, 4 * inner + 1))
    void = cv2.dilate(objects, near) != cv2.erode(objects, near)
    void |= (objects == 0) & (cv2.dilate(objects, far) > 0)
    classes[void] = objects[void] = VOID
    return classes, objects


def _light(rng: Rng, image: Image) -> Image:
    """A little more or less light, a slight cast, a little grain: a camera's, no damage."""
    gain, lift = np.exp(rng.normal(0, 0.06) + rng.normal(0, 0.025, 3)), rng.normal(0, 5)
    lit = np.asarray(image * gain + lift, np.float64)
    if rng.random() < 0.5:
        lit = lit + rng.normal(0, rng.uniform(1, 4), image.shape[:2])[..., None]
    return np.clip(lit, 0, 255).astype(np.uint8)
