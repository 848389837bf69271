"""The words of the bundled model: concepts with their synonyms and the emoji that draw them.

`concepts.txt` is the curated list; its header explains the format.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONCEPTS_FILE = Path(__file__).with_name("concepts.txt")

VOC_OBJECTS = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dog", "horse",
    "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The PASCAL VOC things in VOC order, without the dining table, which has no emoji."""

DINING_TABLE = ("dining table", "table", "dinner table", "kitchen table", "laid table")
"""The words of the tables that are drawn from shapes."""

BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "sky": ("sky", "blue sky", "cloudy sky"),
    "grass": ("grass", "lawn", "meadow", "field"),
    "water": ("water", "sea", "ocean", "lake", "river"),
    "sand": ("sand", "beach", "desert"),
    "snow": ("snow", "snowy ground"),
    "brick wall": ("brick wall", "wall of bricks"),
    "wood": ("wood", "wooden floor", "planks", "wooden table"),
    "road": ("road", "asphalt", "street"),
    "night sky": ("night sky", "starry sky", "night"),
    "sunset": ("sunset", "sunset sky", "evening sky"),
    "ground": ("ground", "soil", "dirt", "earth ground"),
    "tiles": ("tiles", "tiled floor", "tiled wall"),
    "background": ("background", "plain background", "plain wall", "wall", "paper background"),
    "stone wall": ("stone wall", "cobblestones", "stone pavement"),
    "bushes": ("bushes", "hedge", "foliage", "undergrowth"),
    "fabric": ("fabric", "cloth", "carpet", "rug"),
    "concrete": ("concrete", "cement", "plaster wall"),
}
"""Painted surfaces: name -> every word for it."""

EVALUATED_BACKGROUNDS = tuple(BACKGROUNDS)[:9]

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0, 1.0, 1.0),
    "orange": (14, 1.0, 1.0),
    "yellow": (26, 1.0, 1.08),
    "green": (62, 0.9, 0.85),
    "blue": (109, 0.95, 0.95),
    "purple": (139, 0.8, 0.9),
    "pink": (166, 0.55, 1.15),
    "white": (0, 0.04, 1.25),
    "black": (0, 0.08, 0.32),
}
"""Colour word -> (hue in OpenCV degrees 0..179, saturation factor, brightness factor)."""

COLOURED_THINGS = ("car", "bus", "truck", "bird", "chair", "sofa", "balloon", "flower", "t-shirt", "dress")
"""Concepts that also come in every colour, as "red car": their art is recoloured."""


COMMON = frozenset(
    (
        "tree", "palm tree", "pine", "flower", "house", "building", "mountain", "sun", "moon", "cloud", "superhero",
        "supervillain", "joker", "tractor", "truck", "traffic light", "chicken", "duck", "pig", "rabbit", "penguin",
        "deer", "fish", "crab", "snowman", "red apple", "green apple", "banana", "bread", "wine", "teapot", "pizza",
        "cake", "coffee", "book", "football", "basketball", "umbrella", "balloon", "laptop", "phone", "clock", "bed",
        "hat", "shoe", "baby", "astronaut", "police officer", "robot", "rocket",
    )
)  # fmt: skip
"""Words that people are most likely to try, drawn more often."""


@dataclass(frozen=True)
class Concept:
    """One thing (or surface) with its words.

    Attributes:
        name: the canonical word.
        words: every word for it, the canonical one first.
        glyphs: emoji short names that draw it; empty for painted surfaces and coloured variants.
        parent: a wider concept this one is a kind of, or "".
        hue: how far the colours may be shifted in training: "free", "near" or "fixed".
        colour: the colour word of a recoloured variant of `parent`, or "".
    """

    name: str
    words: tuple[str, ...]
    glyphs: tuple[str, ...] = ()
    parent: str = ""
    hue: str = "free"
    colour: str = ""


def read_things(path: Path = CONCEPTS_FILE) -> list[Concept]:
    """Read the curated things, in file order."""
    things: list[Concept] = []
    hue = "free"
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            hue = line.strip("[]")
            continue
        left, right = line.split(" = ", 1)
        left, _, parent = left.partition(" < ")
        words = tuple(w.strip() for w in left.split(","))
        things.append(Concept(words[0], words, tuple(right.split()), parent.strip(), hue))
    return things


def coloured_variants(things: list[Concept]) -> list[Concept]:
    """Every colour of the things that are recoloured: "red car" with the parent "car"."""
    by_name = {t.name: t for t in things}
    variants = []
    for name in COLOURED_THINGS:
        thing = by_name[name]
        for colour in COLOURS:
            words = tuple(f"{colour} {word}" for word in thing.words[:2])
            variants.append(Concept(f"{colour} {name}", words, (), name, "fixed", colour))
    return variants


def surfaces() -> list[Concept]:
    """The painted surfaces as concepts."""
    return [Concept(name, words) for name, words in BACKGROUNDS.items()]


def all_words(concepts: list[Concept]) -> list[str]:
    """Every word of the concepts, sorted, once."""
    return sorted({word for concept in concepts for word in concept.words})
