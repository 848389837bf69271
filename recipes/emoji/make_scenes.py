"""Write seeded test scenes: `python -m recipes.emoji.make_scenes --art heldout --seed 1 --out scenes/`.

The folder holds `images/`, `labels/` (index PNG, class number = line of `classes.txt`) and `classes.txt`:

    clipseg segment scenes/images -c scenes/classes.txt --background none --model emoji --method maskclip --out pred
    python -m recipes.emoji.evaluate --pred pred --scenes scenes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
from PIL import Image

from recipes.emoji.measure import NAMES, fixed_scenes, label_map
from recipes.emoji.vocabulary import heldout_vocabulary, load_vocabulary


def write_scenes(out: Path, art: str, images: int, size: int, seed: int) -> None:
    """Write `images` scenes of `size` pixels in the training art or the held-out art."""
    vocabulary = load_vocabulary() if art == "train" else heldout_vocabulary()
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(fixed_scenes(vocabulary, images, size, seed)):
        Image.fromarray(scene.image).save(out / "images" / f"{number:04d}.png")
        Image.fromarray(label_map(scene)).save(out / "labels" / f"{number:04d}.png")
    (out / "classes.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.emoji.make_scenes", description="Write test scenes."
    )
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=224, help="side in pixels")
    parser.add_argument("--art", choices=("train", "heldout"), default="train")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    write_scenes(args.out, args.art, args.images, args.size, args.seed)


if __name__ == "__main__":
    main()
