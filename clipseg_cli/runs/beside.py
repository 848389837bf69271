"""Other label maps of the same images, in the ids of a run: of a second run, or the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from clipseg_cli.config import ignore_value
from clipseg_cli.data.labels import IGNORED, LABEL_VALUES, read_label
from clipseg_cli.errors import DatasetError, RunError
from clipseg_cli.runs.labelled import open_labels
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import PurePosixPath

    from numpy.typing import NDArray

    from clipseg_cli.runs.labelled import LabelFolder
    from clipseg_cli.types import ClassList, Dataset, Sample

NAMED = 3


class OtherMaps(Protocol):
    """Label maps by the names of images."""

    def __contains__(self, name: PurePosixPath) -> bool:
        """Whether there is one of an image."""

    def read(self, name: PurePosixPath, size: tuple[int, int]) -> NDArray[np.int32]:
        """[H, W] class ids of the run, its ignore value, or -1 for a class that it does not have.

        Raises:
            DatasetError: unreadable, or of another size.
        """


@dataclass(frozen=True)
class TruthOfADataset:
    """The ground truth of the data set that a run labelled.

    Args:
        dataset: whose labels.
        samples: those that have some, by name.
    """

    dataset: Dataset
    samples: Mapping[PurePosixPath, Sample]

    def __contains__(self, name: PurePosixPath) -> bool:
        return name in self.samples

    def read(self, name: PurePosixPath, size: tuple[int, int]) -> NDArray[np.int32]:
        """As `OtherMaps`."""
        ids = read_label(self.samples[name], self.dataset, size)
        return np.where(ids == IGNORED, ignore_value(len(self.dataset.classes)), ids)


@dataclass(frozen=True)
class MapsOfAFolder:
    """The label maps in another folder, whose classes are matched by their names.

    Args:
        labels: the folder.
        ids: [65536] value there -> id here.
        notes: what a user should be told once.
    """

    labels: LabelFolder
    ids: NDArray[np.int32]
    notes: tuple[str, ...] = ()

    def __contains__(self, name: PurePosixPath) -> bool:
        return name in self.labels.files

    def read(self, name: PurePosixPath, size: tuple[int, int]) -> NDArray[np.int32]:
        """As `OtherMaps`."""
        values = self.labels.read(name).labels
        if values.shape != size:
            height, width = values.shape
            raise DatasetError(
                f"{self.labels.files[name]} is {width}x{height}, but {name} is {size[1]}x{size[0]}",
                hint="a label belongs to one image, pixel by pixel",
            )
        return np.take(self.ids, values)


def truth_of(dataset: Dataset | None) -> TruthOfADataset | None:
    """The ground truth of a data set, as far as it is there; None where there is none."""
    if dataset is None or dataset.label_ids is None:
        return None
    samples = {s.source.relative: s for s in dataset.samples if s.label is not None and s.label.is_file()}
    return TruthOfADataset(dataset, samples) if samples else None


def maps_of(folder: str, run: LabelFolder, *, classes: ClassList | None = None) -> MapsOfAFolder:
    """The label maps in a folder, for the images of a run.

    Args:
        folder: of any kind that `open_labels` takes.
        run: whose images and classes count.
        classes: what the values mean where nothing there says so; None refuses such a folder.

    Raises:
        ClipsegError: as `open_labels`; no class has the name of one of the run, or no image is there.
    """
    labels = open_labels(folder, fallback=classes)
    own, other = run.run.classes, labels.run.classes
    known = {name.casefold(): i for i, name in enumerate(own.names)}
    ids = np.full(LABEL_VALUES, -1, np.int32)
    strange = []
    for i, name in enumerate(other.names):
        if name.casefold() in known:
            ids[i] = known[name.casefold()]
        else:
            strange.append(name)
    if len(strange) == len(other):
        raise RunError(
            f"{folder} has other classes than {run.folder}: {listed(other.names)}",
            hint=f"{run.folder} has {listed(own.names)}",
        )
    ids[ignore_value(len(other))] = ignore_value(len(own))
    there = sum(name in labels.files for name in run.files)
    if not there:
        first = next(iter(run.files))
        raise RunError(
            f"{folder} holds no label map of any image of {run.folder}", hint=f"one is called {first}"
        )
    notes = []
    if strange:
        notes.append(
            f"{folder}: pixels with {listed(strange, NAMED)} count as different: no classes of {run.folder}"
        )
    if there < len(run.files):
        notes.append(f"{folder} holds label maps of {there:,} of {len(run.files):,} images")
    return MapsOfAFolder(labels, ids, tuple(notes))
