"""`clipseg eval RUN`: how good labels are on the images that a human has corrected or checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipseg_cli.config import ignore_value
from clipseg_cli.data.labels import read_values
from clipseg_cli.errors import RunError
from clipseg_cli.ops.bootstrap import bootstrap_scores
from clipseg_cli.ops.metrics import Scores, confusion_matrix, score
from clipseg_cli.runs.human import home_of, is_current, label_file, machine_file, read_human
from clipseg_cli.runs.labelled import open_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipseg_cli.runs.human import HumanRecord
    from clipseg_cli.types import ClassList


@dataclass(frozen=True)
class CheckedImage:
    """One image that a human answers for.

    Attributes:
        record: who, when, from what.
        miou, pixel_accuracy: of the labels on this image alone, in [0, 1]; NaN where nothing is labelled.
    """

    record: HumanRecord
    miou: float
    pixel_accuracy: float


@dataclass(frozen=True)
class CheckedReport:
    """How good labels are on the images that humans answer for.

    Attributes:
        run: folder of the labels.
        scored: what was scored: "the labels of the machine", or a folder.
        classes: what the ids mean.
        images: that were scored.
        confusion: [C, C + 1] pixels, row = human, last column = no class.
        scores: over all images.
        intervals: "mIoU" and "pixel_accuracy" -> (low, high), 95 % of bootstrap draws; none for a single image.
        notes: what a user should be told once.
    """

    run: Path
    scored: str
    classes: ClassList
    images: tuple[CheckedImage, ...]
    confusion: NDArray[np.int64]
    scores: Scores
    intervals: dict[str, tuple[float, float]]
    notes: tuple[str, ...]


def score_checked(run: str, predictions: str = "") -> CheckedReport:
    """Score the labels that the machine made, or those of another folder, against those of humans.

    Args:
        run: a run of `pseudolabel` or a folder of `segment`, with labels that were imported.
        predictions: another folder of labels of the same images and classes, such as those of a student.

    Raises:
        ClipsegError: no human label, or labels that are missing or do not fit.
    """
    labels = open_labels(run)
    home = home_of(labels.folder)
    records = read_human(home)
    notes = []
    if edited := [name for name, record in records.items() if not is_current(home, record)]:
        were = "label was" if len(edited) == 1 else "labels were"
        notes.append(f"{len(edited)} {were} changed since the import and left out, such as {edited[0]}")
    images = [record for name, record in records.items() if name not in edited]
    if not images:
        raise RunError(
            f"{home} has no label that a human has corrected or checked",
            hint="take some back with clipseg import RUN FILES; --run RUN evaluates its model on ground truth",
        )
    others = open_labels(predictions) if predictions else None
    classes = labels.run.classes
    if others is not None and others.run.classes.names != classes.names:
        raise RunError(f"{predictions} has other classes than {run}", hint="label with the same words")
    ignore, many = ignore_value(len(classes)), len(classes)
    found, matrices = [], []
    for record in images:
        truth = read_values(label_file(home, record.image)).astype(np.int32)
        truth[truth == ignore] = -1
        size = (truth.shape[0], truth.shape[1])
        if others is None:
            machine = read_values(machine_file(home, record), size=size, source=record.image).astype(np.int32)
        else:
            name = PurePosixPath(record.image)
            if name not in others.files:
                raise RunError(
                    f"{predictions} has no label for {record.image}", hint="label all images there"
                )
            machine = others.read(name).labels.astype(np.int32)
            if machine.shape != truth.shape:
                raise RunError(f"{others.files[name]} has another size than the label of {run}")
        matrix = confusion_matrix(torch.from_numpy(machine), torch.from_numpy(truth), many)
        own = score(matrix)
        found.append(CheckedImage(record, own.miou, own.pixel_accuracy))
        matrices.append(matrix.numpy())
    stacked = np.stack(matrices)
    total = stacked.sum(0)
    intervals = {}
    if len(found) > 1:
        columns = stacked[:, :, :many]
        right = np.diagonal(columns, axis1=1, axis2=2)
        intervals = bootstrap_scores(right, stacked.sum(2), columns.sum(1))
    notes += _doubts(images)
    scored = predictions or "the labels of the machine"
    return CheckedReport(
        home, scored, classes, tuple(found), total, score(torch.from_numpy(total)), intervals, tuple(notes)
    )


def _doubts(images: list[HumanRecord]) -> list[str]:
    """Why the figures may say little of the other labels."""
    doubts = []
    if all(record.kind == "corrected" for record in images):
        doubts.append(
            "every one of these images was corrected: the others may be better. Mark good ones as well "
            "(--checked, or a review page), or correct images drawn at random"
        )
    if len(images) < 10:
        few = "1 image is" if len(images) == 1 else f"{len(images)} images are"
        doubts.append(f"{few} little to go by: an interval needs some tens to be relied on")
    return doubts
