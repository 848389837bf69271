"""Class masks as PASCAL VOC has them, in a zip with `labelmap.txt`: CVAT's "Segmentation mask 1.1".

`labelmap.txt` gives every class its colour. "background", black where nothing says otherwise, is the background of the
labels, or no class where they have none. (224, 224, 192), void, is no class.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.data.annotations._files import image_bytes, open_archive, read_colours
from clipseg_cli.data.annotations._kinds import zip_kind
from clipseg_cli.data.annotations._regions import ClassNames, about
from clipseg_cli.errors import AnnotationError
from clipseg_cli.types import NO_CLASS, Annotation, AnnotationFormat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clipseg_cli.data.annotations._files import Archive
    from clipseg_cli.types import ReadOptions, Told

LABELMAP, MASKS = "labelmap.txt", "SegmentationClass/"
BACKGROUND, SEPARATORS = "background", ":#"
VOID = 224 + (224 << 8) + (192 << 16)
_MOST_TEXT = 1 << 24  # bytes of labelmap.txt


def read(path: Path, options: ReadOptions) -> Iterator[Annotation]:
    """The images of an archive.

    Raises:
        AnnotationError: it is no such archive.
    """
    names = ClassNames(options.classes, SEPARATORS, (BACKGROUND,))
    background = NO_CLASS if options.classes.background is None else options.classes.background
    with open_archive(path) as archive:
        labelmap = next((name for name in archive.names if name.rpartition("/")[2] == LABELMAP), "")
        folder = labelmap[: -len(LABELMAP)] + MASKS
        masks = [name for name in archive.names if name.startswith(folder) and name.endswith(".png")]
        if not labelmap or not masks:
            raise AnnotationError(f"{path} lacks {MASKS} or {LABELMAP}", hint="export it again")
        with about(f"{labelmap} in {path}"):
            colours = _colours(archive.read(labelmap, _MOST_TEXT), names, background)
        for name in masks:
            yield Annotation(name[len(folder) :], None, partial(_told, archive, name, colours))


def _colours(data: bytes, names: ClassNames, background: int) -> dict[int, int | str]:
    """Colour -> class id, or the name of what is no class of the labels: that is only wrong where it occurs."""
    found: dict[int, int | str] = {VOID: NO_CLASS}
    for number, line in enumerate(data.decode("utf-8", errors="replace").split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *rest = line.rstrip("\r").split(":")
        try:
            red, green, blue = (int(part) for part in rest[0].split(","))
            if not all(0 <= value < 256 for value in (red, green, blue)):
                raise ValueError
        except (ValueError, IndexError):
            raise AnnotationError(f"line {number} has no colour: {line[:60]}") from None
        colour = red + (green << 8) + (blue << 16)
        if colour in found and colour != VOID:
            raise AnnotationError(f"line {number} gives {name} the colour of another class")
        found[colour] = background if name == BACKGROUND else _id_or_name(name, names)
    return {0: background, **found}


def _id_or_name(name: str, names: ClassNames) -> int | str:
    try:
        return names[name]
    except AnnotationError:
        return name


def _told(archive: Archive, name: str, colours: dict[int, int | str], size: tuple[int, int]) -> Told:
    pixels = read_colours(image_bytes(archive, name, size), size)
    found, index = np.unique(pixels, return_inverse=True)
    classes = np.zeros(len(found), np.int32)
    for i, colour in enumerate(found.tolist()):
        own = colours.get(colour)
        rgb = f"({colour & 255}, {colour >> 8 & 255}, {colour >> 16})"
        if own is None:
            raise AnnotationError(f"its mask holds the colour {rgb}, which {LABELMAP} does not name")
        if isinstance(own, str):
            raise AnnotationError(f"its mask holds '{own}' {rgb}, which is no class of the labels")
        classes[i] = own
    return classes[index.reshape(pixels.shape)]


FORMAT = AnnotationFormat(
    read,
    lambda path: zip_kind(path) == "voc",
    (".zip",),
    summary="PASCAL VOC masks in a zip, CVAT's Segmentation mask 1.1",
)
