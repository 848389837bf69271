"""Images with labels to learn from, wherever they come from: a run, a data set, or a folder of label maps."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipseg_cli.data.datasets import read_label
from clipseg_cli.errors import DatasetError, RunError, UsageError
from clipseg_cli.inference.dataset import open_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from clipseg_cli.config import IndexConfig
    from clipseg_cli.types import Dataset, Sample


@dataclass(frozen=True)
class LabelledSet:
    """Images and where their labels lie.

    Attributes:
        dataset: whose classes the labels count by.
        samples: with a label file each.
    """

    dataset: Dataset
    samples: tuple[Sample, ...]

    def truth(self, sample: Sample, size: tuple[int, int]) -> NDArray[np.int32]:
        """[H, W] class ids, -1 where there is no label.

        Raises:
            DatasetError: unreadable, of another size, or with a number that is no class.
        """
        return read_label(sample, self.dataset, size)


def of_dataset(config: IndexConfig) -> LabelledSet:
    """The images of a data set that have ground truth; the training split where none is chosen.

    Raises:
        ClipsegError: no data set, or no ground truth in it.
    """
    dataset, _ = open_data(replace(config, dataset=config.labels), "label")
    return _having_labels(dataset, dataset.samples, config.labels)


def of_folder(config: IndexConfig) -> LabelledSet:
    """The images of one folder with the label PNGs of another.

    Raises:
        ClipsegError: nothing names the classes, or no image has a label.
    """
    labels = Path(config.labels)
    if not labels.is_dir():
        raise DatasetError(f"{labels} is no folder of label PNGs")
    classes, background = config.classes or _classes_beside(labels), config.background
    if not config.classes and background == "auto":
        background = "none"  # a list beside the labels names all of them
    dataset, _ = open_data(replace(config, classes=classes, background=background), "label")
    return in_folder(dataset, labels, config.labels)


def in_folder(dataset: Dataset, labels: Path, where: str) -> LabelledSet:
    """The images of a data set with label maps of a folder, by our own numbers."""
    from clipseg_cli.data.datasets import own_label_ids

    found = []
    for sample in dataset.samples:
        path = labels / f"{sample.source.relative}.png"
        if path.is_file():
            found.append(replace(sample, label=path))
    ids = own_label_ids(len(dataset.classes))
    return _having_labels(replace(dataset, label_ids=ids, labels_are="class ids"), found, where)


def _having_labels(dataset: Dataset, samples: Sequence[Sample], where: str) -> LabelledSet:
    found = tuple(sample for sample in samples if sample.label is not None)
    if not found:
        raise DatasetError(
            f"no image of {dataset.root} has a label in {where}",
            hint="label maps are PNG files with the names of their images",
        )
    return LabelledSet(dataset, found)


def _classes_beside(labels: Path) -> str:
    """The list of classes that lies beside label maps: `classes.txt`, or what `clipseg segment` wrote."""
    for folder in (labels, labels.parent):
        if (folder / "classes.txt").is_file():
            return str(folder / "classes.txt")
        if (folder / "classes.json").is_file():
            return _names_in(folder / "classes.json")
    raise UsageError(
        f"nothing names the classes of the labels in {labels}",
        hint="add --classes cat,dog, or a file classes.txt beside them, one class a line",
    )


def _names_in(path: Path) -> str:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["classes"]
        return ",".join("|".join(row["words"] or [row["name"]]) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} does not say what the labels mean", hint="add --classes") from error
