"""Write a data set in the layout of PASCAL VOC 2012: `python -m recipes.emoji.make_voc --images 100 --out emoji-voc`.

    JPEGImages/2012_000001.jpg            images
    SegmentationClass/2012_000001.png     palette PNG: 0 background, 1..20 the classes, 255 void borders
    SegmentationObject/2012_000001.png    the same for the single things: 1, 2, 3 ...
    ImageSets/Segmentation/               train.txt, val.txt, trainval.txt

Equal seeds give equal bytes on equal library versions. With the same `--val` share the first images do not depend on
how many follow, nor does their place in train or val.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from clipseg_cli.outputs import voc_palette
from clipseg_cli.utils.files import write_bytes
from recipes.emoji.art import SPRITE_SIDE
from recipes.emoji.voc_scenes import LARGEST, VOC_CLASSES, VocComposer, VocImage
from recipes.emoji.vocabulary import Vocabulary, heldout_vocabulary, load_vocabulary

if TYPE_CHECKING:
    from recipes.emoji.painting import Rng

SPLITS = Path("ImageSets", "Segmentation")


def write_voc(
    out: Path,
    vocabulary: Vocabulary,
    images: int,
    val: float,
    seed: int,
    long_side: tuple[int, int] = (256, 320),
) -> dict[str, int]:
    """Write the tree; return the number of images of each split. The split files come last."""
    composers = {split: VocComposer(vocabulary, long_side) for split in ("train", "val")}
    names: dict[str, list[str]] = defaultdict(list)
    for i in range(images):
        # Val is spread evenly over the numbers, so that the split does not depend on how many follow.
        split = "val" if int((i + 1) * val + 1e-9) > int(i * val + 1e-9) else "train"
        rng = np.random.default_rng([seed, i])
        name = f"2012_{i + 1:06d}"
        write_image(out, name, composers[split].make(rng), rng)
        names[split].append(name)
        names["trainval"].append(name)
    for split in ("train", "val", "trainval"):
        write_bytes(out / SPLITS / f"{split}.txt", "".join(f"{name}\n" for name in names[split]).encode())
    report(composers)
    return {split: len(names[split]) for split in ("train", "val")}


def drawn_side(long_side: int) -> int:
    """The side at which art is rasterised: as large as the largest things, in steps, since each is cached."""
    return math.ceil(LARGEST * long_side / SPRITE_SIDE) * SPRITE_SIDE


def write_image(out: Path, name: str, made: VocImage, rng: Rng) -> None:
    """Write one JPEG and its two label images."""
    buffer = io.BytesIO()
    Image.fromarray(made.image).save(buffer, "JPEG", quality=int(rng.integers(85, 93)))
    write_bytes(out / "JPEGImages" / f"{name}.jpg", buffer.getvalue())
    for folder, labels in (("SegmentationClass", made.classes), ("SegmentationObject", made.objects)):
        label_image = Image.fromarray(labels)
        label_image.putpalette(voc_palette().tobytes())
        buffer = io.BytesIO()
        label_image.save(buffer, "PNG", optimize=True)
        write_bytes(out / folder / f"{name}.png", buffer.getvalue())


def report(composers: dict[str, VocComposer]) -> None:
    """Print in how many images of each split every class is."""
    print(f"{'class':<12} {'train':>5} {'val':>5}")
    for i, name in enumerate(VOC_CLASSES):
        print(f"{name:<12} {composers['train'].counts[i]:>5} {composers['val'].counts[i]:>5}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.emoji.make_voc", description="Write a VOC data set."
    )
    parser.add_argument("--images", type=int, default=100, help="train and val together")
    parser.add_argument("--out", type=Path, required=True, help="a folder that holds no such tree yet")
    share = parser.add_mutually_exclusive_group()
    share.add_argument(
        "--val", type=float, default=0.4, metavar="SHARE", help="share of val, 0 to 1 (default 0.4)"
    )
    share.add_argument("--val-images", type=int, metavar="M", help="number of val images instead")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--art", choices=("train", "heldout"), default="train")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(256, 320), metavar=("FROM", "TO"), help="longer side"
    )
    args = parser.parse_args()
    share_of_val = args.val if args.val_images is None else args.val_images / max(args.images, 1)
    if args.images < 1 or not 0 <= share_of_val <= 1:
        parser.error("--images must be at least 1, and val a share of them")
    if not 64 <= args.size[0] <= args.size[1]:
        parser.error("--size takes two numbers, the smaller first, 64 or more")
    if (args.out / "JPEGImages").exists():
        parser.error(f"{args.out} already holds a data set: choose another folder")
    cv2.setNumThreads(1)
    load = load_vocabulary if args.art == "train" else heldout_vocabulary
    made = write_voc(
        args.out, load(side=drawn_side(args.size[1])), args.images, share_of_val, args.seed, tuple(args.size)
    )
    print(f"{made['train']} train and {made['val']} val images in {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
