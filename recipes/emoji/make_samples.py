"""Draw the images of `samples/`: `python -m recipes.emoji.make_samples --out samples`.

Laid out by hand, with the art of the training families at full resolution; no training scene looks like them. Every
layout is a list of things that stand at (x, y), their foot, in shares of the image's width and height.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from recipes.emoji.art import Sprite, load_family, rasterise, squeeze
from recipes.emoji.concepts import COLOURS
from recipes.emoji.scenes import Scene, paste
from recipes.emoji.style import recolour
from recipes.emoji.textures import PAINTERS

if TYPE_CHECKING:
    from recipes.emoji.painting import Rng


@dataclass(frozen=True)
class Thing:
    """A drawing and its place.

    Attributes:
        glyph: emoji short name.
        x, y: the middle of its foot, as shares of width and height.
        height: as a share of the image's height.
        family: art set.
        colour: a colour word to repaint it with, or "".
        flip: mirrored.
        shadow: darkness of the shadow at its foot; 0 for things in the air.
    """

    glyph: str
    x: float
    y: float
    height: float
    family: str = "noto"
    colour: str = ""
    flip: bool = False
    shadow: float = 0.35


@dataclass(frozen=True)
class Layout:
    """Surfaces from top to bottom, each with the share of the height where it starts, and things back to front."""

    file: str
    size: tuple[int, int]  # width, height
    surfaces: tuple[tuple[str, float], ...]
    things: tuple[Thing, ...]
    hills: float = 0.0
    seed: int = 1


T = Thing
LAYOUTS = (
    Layout(
        "night_heroes.png",
        (900, 640),
        (("night sky", 0.0), ("road", 0.80)),
        (
            T("crescent-moon", 0.90, 0.27, 0.19, shadow=0),
            T("office-building", 0.09, 0.81, 0.40, shadow=0),
            T("department-store", 0.32, 0.81, 0.26, shadow=0),
            T("hotel", 0.67, 0.81, 0.30, shadow=0),
            T("office-building", 0.92, 0.81, 0.36, shadow=0, flip=True),
            T("man-superhero", 0.24, 0.70, 0.52, shadow=0),
            T("joker", 0.50, 0.92, 0.30),
            T("man-supervillain", 0.77, 0.95, 0.56, flip=True),
        ),
        seed=12,
    ),
    Layout(
        "cars.png",
        (960, 600),
        (("sky", 0.0), ("grass", 0.42), ("road", 0.66)),
        (
            T("deciduous-tree", 0.08, 0.58, 0.36),
            T("house", 0.47, 0.56, 0.30),
            T("deciduous-tree", 0.92, 0.60, 0.42),
            T("evergreen-tree", 0.27, 0.57, 0.33),
            T("evergreen-tree", 0.71, 0.57, 0.30),
            T("automobile", 0.27, 0.88, 0.27, colour="red"),
            T("automobile", 0.72, 0.88, 0.27, colour="blue", flip=True),
        ),
        hills=0.015,
        seed=14,
    ),
    Layout(
        "farm_large.jpg",
        (2400, 1600),
        (("sky", 0.0), ("grass", 0.45)),
        (
            T("sun", 0.11, 0.24, 0.17, shadow=0),
            T("evergreen-tree", 0.34, 0.53, 0.22),
            T("evergreen-tree", 0.41, 0.52, 0.18),
            T("house-with-garden", 0.20, 0.58, 0.30),
            T("deciduous-tree", 0.64, 0.56, 0.27),
            T("deciduous-tree", 0.93, 0.58, 0.34),
            T("tractor", 0.77, 0.66, 0.22),
            T("horse", 0.51, 0.71, 0.23),
            T("cow", 0.22, 0.86, 0.28),
            T("ewe", 0.49, 0.90, 0.18),
            T("ewe", 0.61, 0.96, 0.19, flip=True),
            T("rooster", 0.07, 0.95, 0.13),
            T("cow", 0.84, 0.93, 0.27, flip=True),
        ),
        hills=0.03,
        seed=21,
    ),
    Layout(
        "beach.png",
        (960, 640),
        (("sky", 0.0), ("water", 0.36), ("sand", 0.60)),
        (
            T("airplane", 0.62, 0.20, 0.15, shadow=0),
            T("sailboat", 0.26, 0.50, 0.26, shadow=0),
            T("ship", 0.58, 0.46, 0.13, shadow=0),
            T("palm-tree", 0.90, 0.82, 0.56, shadow=0.2),
            T("crab", 0.46, 0.93, 0.12),
            T("dog", 0.30, 0.90, 0.23),
            T("woman-walking", 0.66, 0.93, 0.32),
            T("basketball", 0.13, 0.92, 0.11),
        ),
        hills=0.01,
        seed=34,
    ),
    Layout(
        "still_life.png",
        (900, 640),
        (("brick wall", 0.0), ("wood", 0.62)),
        (
            T("potted-plant", 0.87, 0.74, 0.46),
            T("bottle-with-popping-cork", 0.15, 0.82, 0.44),
            T("teapot", 0.64, 0.78, 0.25),
            T("bread", 0.42, 0.76, 0.26),
            T("wine-glass", 0.28, 0.86, 0.30),
            T("banana", 0.74, 0.93, 0.22),
            T("red-apple", 0.47, 0.93, 0.19),
            T("green-apple", 0.59, 0.95, 0.18),
        ),
        seed=41,
    ),
    Layout(
        "street.png",
        (1024, 640),
        (("sky", 0.0), ("tiles", 0.52), ("road", 0.66)),
        (
            T("office-building", 0.12, 0.60, 0.48, family="fluent-emoji", shadow=0),
            T("department-store", 0.38, 0.60, 0.34, family="noto", shadow=0),
            T("hotel", 0.62, 0.60, 0.42, family="fluent-emoji", shadow=0),
            T("deciduous-tree", 0.88, 0.62, 0.42, family="fluent-emoji"),
            T("woman-walking", 0.50, 0.69, 0.22, family="fluent-emoji"),
            T("man-standing", 0.76, 0.68, 0.22, family="fluent-emoji"),
            T("bus", 0.24, 0.88, 0.30, family="fluent-emoji"),
            T("motorcycle", 0.60, 0.93, 0.20, family="noto"),
            T("bicycle", 0.84, 0.93, 0.21, family="fluent-emoji"),
        ),
        seed=51,
    ),
    Layout(
        "living_room.png",
        (960, 640),
        (("background", 0.0), ("wood", 0.68)),
        (
            T("television", 0.80, 0.76, 0.36),
            T("couch-and-lamp", 0.34, 0.84, 0.50),
            T("potted-plant", 0.60, 0.77, 0.30),
            T("chair", 0.07, 0.90, 0.36, flip=True),
            T("cat", 0.50, 0.95, 0.22),
            T("dog", 0.71, 0.96, 0.23, flip=True),
        ),
        seed=164,
    ),
    Layout(
        "winter.png",
        (900, 600),
        (("sky", 0.0), ("snow", 0.46)),
        (
            T("evergreen-tree", 0.07, 0.60, 0.36),
            T("house", 0.76, 0.62, 0.38),
            T("evergreen-tree", 0.93, 0.64, 0.42),
            T("train", 0.44, 0.64, 0.26),
            T("snowman-without-snow", 0.23, 0.88, 0.36),
            T("penguin", 0.48, 0.92, 0.22),
            T("deer", 0.70, 0.92, 0.30),
        ),
        hills=0.03,
        seed=71,
    ),
)


def draw(thing: Thing, height: int) -> Sprite:
    """A thing's pixels, `height` high."""
    body = load_family(thing.family).bodies[squeeze(thing.glyph)]
    sprite = rasterise(*body, side=int(height * 1.6))
    width = round(sprite.shape[1] * height / sprite.shape[0])
    sprite = np.asarray(cv2.resize(sprite, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    if thing.colour:
        sprite = recolour(sprite, *COLOURS[thing.colour])
    return np.ascontiguousarray(sprite[:, ::-1]) if thing.flip else sprite


def paint_surfaces(layout: Layout, rng: Rng) -> Scene:
    """The surfaces one below the other; hilly borders if the layout asks for them."""
    width, height = layout.size
    image = np.zeros((height, width, 3), np.uint8)
    ys, xs = np.arange(height)[:, None], np.arange(width)[None]
    for name, start in layout.surfaces:
        wave = layout.hills * height * np.sin(xs / width * rng.uniform(3, 6) + rng.uniform(0, 6))
        top = start * height + (wave if start > 0 else 0)
        first = max(int(np.min(top)), 0)
        lower = np.zeros_like(image)
        lower[first:] = PAINTERS[name](rng, height - first, width)
        image = np.where((ys >= top)[..., None], lower, image)
    return Scene(np.ascontiguousarray(image), np.zeros((height, width), np.uint8), [0])


def drop_shadow(scene: Scene, thing: Thing, width: int, foot: tuple[int, int]) -> None:
    """A soft ellipse under a thing."""
    mask = np.zeros(scene.image.shape[:2], np.float32)
    axes = int(0.48 * width), max(2, int(0.07 * width))
    cv2.ellipse(mask, (foot[0], foot[1] - axes[1] // 3), axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), max(1.0, axes[1] * 0.5)), np.float32)
    scene.image = (scene.image * (1 - thing.shadow * mask[..., None])).astype(np.uint8)


def compose(layout: Layout) -> Scene:
    """Draw one layout."""
    rng = np.random.default_rng(layout.seed)
    scene = paint_surfaces(layout, rng)
    width, height = layout.size
    for thing in layout.things:
        sprite = draw(thing, round(thing.height * height))
        foot = round(thing.x * width), round(thing.y * height)
        if thing.shadow:
            drop_shadow(scene, thing, sprite.shape[1], foot)
        paste(scene, sprite, (foot[1] - sprite.shape[0], foot[0] - sprite.shape[1] // 2), 0)
    return scene


def save(scene: Scene, path: Path) -> None:
    """Write an image as the layout's file name asks."""
    image = Image.fromarray(scene.image)
    if path.suffix == ".jpg":
        image.save(path, quality=88)
    else:
        image.save(path, optimize=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.emoji.make_samples", description="Draw the samples."
    )
    parser.add_argument("--out", type=Path, default=Path("samples"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    for layout in LAYOUTS:
        save(compose(layout), args.out / layout.file)


if __name__ == "__main__":
    main()
