"""Miniature data sets on the disk, with the file names of the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from clipseg_cli.data.datasets import open_dataset
from clipseg_cli.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from clipseg_cli.data.datasets._layout import LabelFiles, Layout

SIZE = (12, 16)
"""(H, W) of every picture."""

VOC = {"train": ("2007_000032", "2007_000039"), "val": ("2007_000033", "2007_000042", "2007_000061")}
CONTEXT = {"train": ("2008_000002", "2008_000003"), "val": ("2008_000009", "2008_000021")}
COCO = {"train": ("000000000009", "000000000025"), "val": ("000000000139", "000000000285", "000000000632")}
ADE = {"train": ("ADE_train_00000001", "ADE_train_00000002"), "val": ("ADE_val_00000001", "ADE_val_00000002")}
CITYSCAPES = {
    "train": ("aachen/aachen_000000_000019", "bochum/bochum_000000_000313"),
    "val": ("frankfurt/frankfurt_000000_000294", "lindau/lindau_000000_000019"),
}


def save_image(path: Path, *, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    """A picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def save_label(path: Path, values: Sequence[int], *, size: tuple[int, int] = SIZE, mode: str = "L") -> Path:
    """A label picture whose rows repeat `values`; mode "P" has a palette, "I;16" 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    row = np.resize(np.asarray(values), width)
    pixels = np.tile(row, (height, 1)).astype(np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(pixels)
    if mode == "P":
        image = image.convert("L")
        image.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
    image.save(path)
    return path


def make_voc(
    root: Path, *, names: Mapping[str, Sequence[str]] = VOC, values: Sequence[int] = (0, 1, 20, 255)
) -> Path:
    """VOC 2012: pictures, palette labels, split lists."""
    return _listed(root, names, values, "SegmentationClass", "ImageSets/Segmentation")


def make_voc_aug(root: Path) -> Path:
    """What trainaug.txt adds: two more pictures, labelled in SegmentationClassAug alone."""
    extra = ("2008_000002", "2008_000003")
    for name in (*VOC["train"], *extra):
        save_image(root / "JPEGImages" / f"{name}.jpg")
        save_label(root / "SegmentationClassAug" / f"{name}.png", (0, 15, 255))
    _write_list(root / "ImageSets/Segmentation/trainaug.txt", (*VOC["train"], *extra))
    return root


def make_context(root: Path, *, values: Sequence[int] = (0, 1, 59)) -> Path:
    """PASCAL Context, as converted inside a VOC2010 folder."""
    return _listed(root, CONTEXT, values, "SegmentationClassContext", "ImageSets/SegmentationContext")


def make_coco(root: Path, *, labels: str = "train ids", folder: str = "annotations") -> Path:
    """COCO 2017 with labels that are "train ids", "raw", "instance" (of COCO-Object) or "none"."""
    ending, values = {
        "train ids": ("_labelTrainIds.png", (0, 79, 80, 170, 255)),
        "raw": (".png", (0, 12, 89, 91, 181, 255)),
        "instance": ("_instanceTrainIds.png", (0, 1, 80)),
        "none": ("", ()),
    }[labels]
    for split, names in COCO.items():
        for name in names:
            save_image(root / "images" / f"{split}2017" / f"{name}.jpg")
            if values:
                save_label(root / folder / f"{split}2017" / f"{name}{ending}", values)
    return root


def make_ade20k(root: Path) -> Path:
    """ADE20K of the 2016 challenge."""
    for split, folder in (("train", "training"), ("val", "validation")):
        for name in ADE[split]:
            save_image(root / "images" / folder / f"{name}.jpg")
            save_label(root / "annotations" / folder / f"{name}.png", (0, 1, 150))
    return root


def make_cityscapes(root: Path, *, labels: Sequence[str] = ("labelTrainIds",)) -> Path:
    """Cityscapes with labels that are "labelTrainIds", "labelIds" or both; the test pictures have none."""
    values = {"labelTrainIds": (0, 18, 255), "labelIds": (0, 7, 26, 33)}
    for split, names in (*CITYSCAPES.items(), ("test", ("berlin/berlin_000000_000019",))):
        for name in names:
            save_image(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png")
            for kind in labels if split != "test" else ():
                save_label(root / "gtFine" / split / f"{name}_gtFine_{kind}.png", values[kind])
    return root


def make_folder(
    root: Path,
    *,
    names: Sequence[str] = ("a", "trip/b"),
    classes: Sequence[str] | None = ("cat", "dog", "couch, sofa"),
    masks: bool = True,
) -> Path:
    """A folder of one's own: images/, masks/ and classes.txt."""
    for name in names:
        save_image(root / "images" / f"{name}.jpg")
        if masks:
            save_label(root / "masks" / f"{name}.png", (0, 1, 2, 255))
    if classes is not None:
        (root / "classes.txt").write_text("\n".join(classes) + "\n", "utf-8")
    return root


def _listed(
    root: Path, names: Mapping[str, Sequence[str]], values: Sequence[int], labels: str, lists: str
) -> Path:
    for split, members in names.items():
        for seed, name in enumerate(members):
            save_image(root / "JPEGImages" / f"{name}.jpg", seed=seed)
            save_label(root / labels / f"{name}.png", values, mode="P")
        _write_list(root / lists / f"{split}.txt", members)
    return root


def _write_list(path: Path, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), "utf-8")


def make_from(layout: Layout, root: Path, form: LabelFiles, values: Sequence[int]) -> Path:
    """One picture a split, where the layout says; for data sets of which nothing else is known here."""
    for split in (layout.label_split, layout.score_split):
        fields = {"split": layout.splits[split], "name": layout.first[split]}
        save_image(root / layout.images.format(**fields))
        save_label(root / form.path.format(**fields), values)
        if layout.split_file:
            _write_list(root / layout.split_file.format(**fields), [fields["name"]])
    return root


def names(dataset):
    """Of its pictures, in order."""
    return [str(sample.source.relative) for sample in dataset.samples]


def refused(root, kind=DatasetError, **options):
    """Message and hint of the error that a folder is refused with."""
    with pytest.raises(kind) as caught:
        open_dataset(root, **options)
    return caught.value.message, caught.value.hint
