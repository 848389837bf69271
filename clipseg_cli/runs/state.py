"""What others did to a run since it was written: labels corrected, cut or removed, images replaced."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from clipseg_cli.config import ignore_value
from clipseg_cli.data.labels import is_decodable, read_values
from clipseg_cli.errors import DatasetError, RunError
from clipseg_cli.runs.human import HumanRecord, human_labels
from clipseg_cli.runs.records import ImageRecord, file_fingerprint, fingerprint, read_records
from clipseg_cli.runs.summary import confidence_path, path_of
from clipseg_cli.types.results import count_ids

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types import Dataset, Sample


_PNG_END = b"IEND"
"""Decoders do without the last chunk, and without pixels before it."""

LabelState = Literal["whole", "changed", "gone"]


def label_state(folder: Path, record: ImageRecord, classes: int) -> LabelState:
    """What became of the label file of a record since it was written.

    Returns:
        "changed": it is another label map of the same size, as somebody has corrected it; "gone": it is not there, or
        damaged.

    Raises:
        RunError: it was replaced by an image that is no label map of this run; nobody's work is written over.
    """
    path = path_of(folder, record.image)
    try:
        data = path.read_bytes()
    except OSError:
        return "gone"
    if not data:  # as a power cut may leave it
        return "gone"
    if not record.label or fingerprint(data) == record.label:
        return "whole"
    if _PNG_END not in data[-64:] or not is_decodable(path):
        return "gone"
    ignore = ignore_value(classes)
    try:
        values = read_values(path, size=(record.height, record.width), source=record.image)
        wrong = values[(values >= classes) & (values != ignore)]
        if wrong.size:
            raise DatasetError(
                f"{path} holds {int(wrong[0])}: ids go from 0 to {classes - 1}, {ignore} is ignored"
            )
    except DatasetError as error:
        raise RunError(
            f"{error.message}; it was changed since this run wrote it",
            hint=error.hint or "correct it, or remove it: the same command makes it again",
        ) from error
    return "changed"


def counted(
    record: ImageRecord,
    labels: NDArray[np.integer[Any]],
    scores: NDArray[np.float32],
    model: NDArray[np.bool_] | None,
    classes: int,
) -> ImageRecord:
    """A record with what stands in a label map.

    Args:
        record: of the image.
        labels: [H, W] ids, or the ignore value.
        scores: [H, W] of the pixels that the model labelled.
        model: [H, W] which pixels these are; the others are ground truth. None: all of them.
        classes: number of them.
    """
    ignore, known = ignore_value(classes), range(classes)
    ids, chances = labels.ravel(), scores.astype(np.float64).ravel()
    counts, sums = count_ids(ids, chances, ignore + 1)
    scored = counts
    if model is not None:
        scored, sums = count_ids(np.where(model.ravel(), ids, ignore), chances, ignore + 1)
    return dataclasses.replace(
        record,
        height=labels.shape[0],
        width=labels.shape[1],
        pixels={i: int(counts[i]) for i in known if counts[i]},
        ignored=int(counts[ignore]),
        scored={i: int(scored[i]) for i in known if scored[i]},
        confidence={i: float(sums[i]) for i in known if scored[i]},
        kept=int(counts[:classes].sum() - scored[:classes].sum()),
    )


def recounted(folder: Path, record: ImageRecord, classes: int) -> ImageRecord:
    """A record with the pixels of each class as they are in its label file now."""
    values = read_values(path_of(folder, record.image))
    ignore = ignore_value(classes)
    counts = np.bincount(values.ravel(), minlength=ignore + 1)
    pixels = {i: int(counts[i]) for i in range(classes) if counts[i]}
    return dataclasses.replace(record, pixels=pixels, ignored=int(counts[ignore]))


class RunState:
    """What is there of a run, and what of it is not as the run left it.

    Attributes:
        written: images whose labels this process has written.
        corrected: image -> record, of labels that somebody has corrected or checked since; they are never written over.
        human: the records of those of them that were imported.
        damaged: images whose label file is there and is no label map any more.
        failed: image -> record, of images that had no label when last tried; known once `finished` was asked for.
        source_bytes: image -> size of its file; 0 where it cannot be told.
    """

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self.folder, self.dataset = folder, dataset
        self.written: list[str] = []
        self.source_bytes = {s.source.name: _bytes(s) for s in dataset.samples}
        self._samples = {s.source.name: s for s in dataset.samples}
        self.corrected: dict[str, ImageRecord] = {}
        self.human: dict[str, HumanRecord] = {}
        self.damaged: frozenset[str] = frozenset()
        self.failed: dict[str, ImageRecord] = {}
        self._replaced: list[str] = []

    def records(self) -> dict[str, ImageRecord]:
        """Of all images whose label is there; of those that somebody has corrected with the pixels that are there.

        Raises:
            RunError: a label was replaced by something that is none, or `human.jsonl` is damaged.
        """
        classes = len(self.dataset.classes)
        human = human_labels(self.folder)
        states: dict[str, LabelState] = {}

        def is_there(record: ImageRecord) -> bool:
            state = label_state(self.folder, record, classes)
            # Checked labels are as they were written, and are kept all the same.
            states[record.image] = "changed" if state == "whole" and record.image in human else state
            return states[record.image] != "gone"

        found = read_records(self.folder, is_there)
        for name in (
            human.keys() - found.keys()
        ):  # whatever became of the record, nobody's work is written over
            found[name] = self._record_of(human[name])
            states[name] = "changed"
        self.corrected = {name: record for name, record in found.items() if states.get(name) == "changed"}
        self.human = {name: record for name, record in human.items() if name in self.corrected}
        self.damaged = frozenset(
            name for name, s in states.items() if s == "gone" and path_of(self.folder, name).is_file()
        )
        return found | {n: recounted(self.folder, record, classes) for n, record in self.corrected.items()}

    def finished(self, *, with_confidence: bool = False) -> dict[str, ImageRecord]:
        """Records of images that need not be labelled again: the label is there, and about the image that is there now.

        Args:
            with_confidence: it must be there too, which a run without it did not write; corrected labels have none.

        Raises:
            RunError: as `records`.
        """
        found = self.records()
        good = {name: record for name, record in found.items() if not record.error}
        self.failed = {name: record for name, record in found.items() if record.error}
        self._replaced = [
            name for name, record in good.items() if name not in self.corrected and self._is_replaced(record)
        ]
        again = set(self._replaced)
        if with_confidence:
            lacking = {name for name in good if not confidence_path(self.folder, name).is_file()}
            again |= lacking - self.corrected.keys()
        return {name: record for name, record in good.items() if name not in again}

    def content(self, sample: Sample) -> str:
        """Fingerprint of the file of an image; empty where it has none."""
        return file_fingerprint(sample.source.path) if sample.source.path else ""

    def _is_replaced(self, record: ImageRecord) -> bool:
        """Whether an image is another one than the one that was labelled.

        Its bytes are read only where the file was touched since its label was written.
        """
        if record.source not in (0, self.source_bytes.get(record.image, 0)):
            return True
        sample = self._samples.get(record.image)
        if not record.content or sample is None or sample.source.path is None:
            return False
        try:
            image, label = sample.source.path.stat(), path_of(self.folder, record.image).stat()
        except OSError:
            return False
        # A copy may bring an older time of change with it, but not of its arrival here.
        if max(image.st_mtime_ns, image.st_ctime_ns) < label.st_mtime_ns:
            return False
        return self.content(sample) not in ("", record.content)

    def _record_of(self, label: HumanRecord) -> ImageRecord:
        height, width = read_values(path_of(self.folder, label.image)).shape
        source = self.source_bytes.get(label.image, 0)
        return ImageRecord(label.image, 0, height, width, label=label.label, source=source)

    def sentences(self) -> Iterator[str]:
        """What a user should be told."""
        if self.human:
            rest = "stays as it is" if len(self.human) == 1 else "stay as they are"
            yield f"{_counted(sorted(self.human), 'label')} corrected or checked by hand and {rest}"
        if edited := [name for name in self.corrected if name not in self.human]:
            rest = "it, and stays as it is" if len(edited) == 1 else "them, and stay as they are"
            yield f"{_counted(edited, 'label')} changed since this run wrote {rest}"
        if replaced := [name for name in self._replaced if name in self._samples]:
            rest = "it was labelled, and is" if len(replaced) == 1 else "they were labelled, and are"
            yield f"{_counted(replaced, 'image')} replaced since {rest} labelled again"

    def require_labels(self) -> None:
        """Prove that what this process has written is still there.

        Raises:
            RunError: labels, or the whole folder, were removed meanwhile.
        """
        gone = [name for name in self.written if not path_of(self.folder, name).is_file()]
        if gone:
            raise RunError(
                f"{len(gone)} of {len(self.written)} labels in {self.folder} were removed while it was working, "
                f"such as {gone[0]}",
                hint="the same command makes them again",
            )


def _counted(names: Collection[str], what: str) -> str:
    """As in "1 label (x) was" or "3 labels (x, ...) were"."""
    first = next(iter(names))
    return f"1 {what} ({first}) was" if len(names) == 1 else f"{len(names)} {what}s ({first}, ...) were"


def _bytes(sample: Sample) -> int:
    try:
        return sample.source.path.stat().st_size if sample.source.path else 0
    except OSError:
        return 0
