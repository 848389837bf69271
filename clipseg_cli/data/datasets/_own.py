"""A folder of the user's own: what its classes are, and which of the images in it have masks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from clipseg_cli.config import IGNORE_INDEX_16, ignore_value
from clipseg_cli.data.classes import load_classes
from clipseg_cli.data.datasets._benchmark import Purpose, check_labels, ground_truth, samples
from clipseg_cli.data.datasets._splits import ALL, Split, find_split, images_of
from clipseg_cli.data.datasets._tree import Tree
from clipseg_cli.data.datasets._values import as_table
from clipseg_cli.data.labels import IGNORED
from clipseg_cli.errors import DatasetError, UsageError
from clipseg_cli.types import Dataset

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from clipseg_cli.data.datasets._choose import Choice
    from clipseg_cli.data.datasets._layout import Layout
    from clipseg_cli.types import ClassList

CLASSES_FILE = "classes.txt"


def open_folder(
    choice: Choice,
    layout: Layout,
    *,
    split: str | None,
    classes: str,
    background: str,
    purpose: Purpose,
    known: str,
) -> Dataset:
    """One split of the user's own data, or all of it.

    Args:
        choice: the folder.
        layout: of a folder that has `images/`; any other is searched for images at all levels.
        split: train or val, where such a list lies in it, a list of the user's, "all", or None.
        classes, background: as the options say.
        purpose: whether masks are needed.
        known: the other layouts, for the hint about a folder without images.

    Raises:
        DatasetError: no images, no classes, or no masks where they are needed.
        UsageError: no such split, or classes that contradict the masks.
    """
    root = choice.root
    if not (root / "images").is_dir() or not any((root / mark).exists() for mark in layout.marks):
        layout = dataclasses.replace(layout, images="{name}.*", labels=())
    tree = Tree(root, layout)
    if not (everything := tree.images(("",))):
        reason = "; ".join(tree.notes) or f"{root}: no images in this folder"
        raise DatasetError(f"not a data set: {reason}", hint=f"known: {known}")
    part = _split(split, root, layout, purpose)
    if part.file is not None and split is not None and not part.file.exists():
        raise DatasetError(f"no such file: {part.file}", hint=f"--split {ALL} takes every image")
    images = everything if part.file is None else images_of(part, tree)
    form, masks = ground_truth(tree, part, images)
    if purpose == "score":
        if not layout.labels:
            raise DatasetError(
                f"{root} is a folder of images without ground truth",
                hint=f"scoring needs images/, masks/ with the same names, and {CLASSES_FILE}",
            )
        check_labels(tree, part, images, masks, form)
    class_list, notes = _classes(root, classes, background, masks=bool(masks))
    return Dataset(
        name=choice.name,
        title=layout.title,
        root=root,
        benchmark=None,
        split=part.name,
        classes=class_list,
        samples=samples(images, masks),
        label_ids=own_label_ids(len(class_list)) if masks else None,
        labels_are=form.are if form else "",
        notes=tuple(dict.fromkeys((*choice.notes, *notes, *tree.notes))),
    )


def _split(spec: str | None, root: Path, layout: Layout, purpose: Purpose) -> Split:
    """The split that is asked for, or the default one where its list exists, or else all images."""
    if spec is not None:
        return find_split(spec, root, layout)
    default = find_split(layout.label_split if purpose == "label" else layout.score_split, root, layout)
    if default.file is not None and default.file.is_file():
        return default
    return Split("", ("",), None)


def _classes(root: Path, classes: str, background: str, *, masks: bool) -> tuple[ClassList, tuple[str, ...]]:
    """The file's classes, or the user's where no mask says otherwise, and what to tell about it."""
    file = root / CLASSES_FILE
    if not classes and not file.exists():
        raise DatasetError(
            f"{root} is a folder of images, and nothing names its classes",
            hint=f"add --classes cat,dog or a file {file}, one class a line; if it is a part of a data set, name "
            "that one's own folder",
        )
    given = load_classes(classes, background=background) if classes else None
    own = load_classes(str(file)) if file.exists() else None
    if given is None or own is None:
        return given or own, ()  # type: ignore[return-value]  # one of them exists
    same = [name.casefold() for name in given.names] == [name.casefold() for name in own.names]
    if masks and not same:
        raise UsageError(
            f"--classes names other classes than {file}, by which the masks in {root} count",
            hint="leave --classes out, or give the same names in the same order with other synonyms",
        )
    return given, (f"classes from --classes, not from {file}",)


def own_label_ids(classes: int) -> NDArray[np.int32]:
    """Line numbers from 0; the largest number of the file's bit depth is ignored: see `Dataset.label_ids`."""
    values = {i: i for i in range(classes)}
    return as_table({**values, ignore_value(classes): IGNORED, IGNORE_INDEX_16: IGNORED})
