"""Data sets, recognised on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from clipseg_cli.types.classes import ClassList
    from clipseg_cli.types.images import ImageSource


@dataclass(frozen=True)
class Sample:
    """One image of a data set.

    Attributes:
        source: the image; `source.relative` is its name within the data set, without suffix.
        label: the file with its ground truth, or None where there is none.
    """

    source: ImageSource
    label: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set that was recognised on the disk, one split of it, under one class list.

    Attributes:
        name: of its file in `data/datasets/`.
        title: for people ("PASCAL VOC 2012").
        root: the folder that has the layout; not always the one that was given.
        benchmark: the class list ("voc21"), or None for a folder of the user's own.
        split: its name ("val"), or the path of the user's list; "" where there are no splits.
        classes: what label ids mean, with the words of each.
        samples: in the order of the split file, or sorted.
        label_ids: [65536] int32: value in a label file -> class id, or -1 for "ignore", or -2 where no label
            file may have that value. None where no image has ground truth.
        labels_are: how the label files count, for people ("train ids", "raw ids 0 to 181").
        unseen: names of the classes of the published zero-shot split; may be empty.
        notes: what a user should be told once ("also holds the labels of context60").
        address: where it lies, if no path leads there; then `root` only gives it a name.
    """

    name: str
    title: str
    root: Path
    benchmark: str | None
    split: str
    classes: ClassList
    samples: tuple[Sample, ...]
    label_ids: NDArray[np.int32] | None = None
    labels_are: str = ""
    unseen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    address: str = ""

    @property
    def where(self) -> str:
        """Where it can be opened again: the whole path, or the address."""
        return self.address or str(self.root.resolve())
