"""`clipseg eval --predictions`: label images made by any tool, scored against ground truth."""

from __future__ import annotations

import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clipseg_cli.config import ignore_value
from clipseg_cli.data.datasets import read_label, read_values
from clipseg_cli.data.images import resize_labels
from clipseg_cli.data.labels import LABEL_VALUES, label_size
from clipseg_cli.errors import ClipsegError, DatasetError, UsageError
from clipseg_cli.evaluation.scoring import ScoredImage, Scoring, results_folder, size_to_score
from clipseg_cli.inference.dataset import open_data, unseen_ids
from clipseg_cli.ops.metrics import confusion_matrix
from clipseg_cli.runs.human import home_of
from clipseg_cli.runs.human_changes import complete_changes
from clipseg_cli.utils.distributed import process_share, rendezvous
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray

    from clipseg_cli.config import EvalConfig
    from clipseg_cli.types import ClassList, Dataset, Sample

TABLES = ("classes.json", "manifest.json")
"""Where clipseg says what the ids in a folder of labels mean."""

_NO_LABELS = ("_overlay", "_heatmaps", "_confidence")
_HERE = PurePosixPath()


@contextmanager
def open_predictions(config: EvalConfig) -> Iterator[PredictionScoring]:
    """Find a prediction for every image of the data set.

    Raises:
        ClipsegError: anything wrong with options or data set, no such folder, or missing predictions.
    """
    if config.corrupt:
        raise UsageError(
            "predictions are made already: images cannot be corrupted any more",
            hint="leave out --corrupt, or --predictions to evaluate a model",
        )
    share = process_share()
    dataset, protocol = open_data(config, "score")
    unseen = unseen_ids(dataset, config.unseen)
    folder = Path(config.predictions)
    if (folder / "labels").is_dir() and (folder / "manifest.json").is_file():
        folder = folder / "labels"  # a pseudo-label run
    complete_changes(home_of(folder))
    files = find_predictions(folder, dataset)
    missing = [s.source.name for s in dataset.samples if s.source.name not in files]
    notes = [*dataset.notes]
    if len(missing) == len(dataset.samples):
        first = folder / f"{dataset.samples[0].source.relative}.png"
        raise DatasetError(f"{folder} holds no prediction for any image", hint=f"looked for {first}")
    if missing:
        what = f"{folder} lacks {len(missing)} of {len(dataset.samples)} predictions: {listed(missing)}"
        if not config.partial:
            raise DatasetError(what, hint="make them, or score the others with --partial")
        notes.append(f"{what}; the others are scored")
    used = set(files.values())
    extra = [path.relative_to(folder) for path in _label_files(folder) if path not in used]
    extra = [path for path in extra if not any(mark in str(path) for mark in _NO_LABELS)]
    if extra:
        what = "1 file" if len(extra) == 1 else f"{len(extra):,} files"
        notes.append(f"ignored {what} in {folder}, of no image of this split: {listed(extra)}")
    table, said = id_table(folder, dataset.classes)
    notes += said
    out = results_folder(config, dataset, folder)
    with rendezvous(share):
        yield PredictionScoring(
            config=config,
            dataset=dataset,
            protocol=protocol,
            images=len(files),
            share=share,
            out=out,
            notes=tuple(notes),
            unseen=unseen,
            files=files,
            table=table,
            folder=folder,
        )


def find_predictions(folder: Path, dataset: Dataset) -> dict[str, Path]:
    """Image -> its label file, which may be called as the image or its ground truth, in its folder or not.

    Raises:
        DatasetError: no such folder, or a file that may belong to several images.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder of predictions", hint="name a folder of label PNGs")
    there = {path.relative_to(folder).with_suffix("").as_posix(): path for path in _label_files(folder)}
    found: dict[str, Path] = {}
    owner: dict[Path, str] = {}
    for sample in dataset.samples:
        relative = sample.source.relative
        stems = [relative.name, *(path.stem for path in (sample.source.path, sample.label) if path)]
        names = [(parent / stem).as_posix() for parent in (relative.parent, _HERE) for stem in stems]
        path = next((there[name] for name in names if name in there), None)
        if path is None:
            continue
        if path in owner:
            raise DatasetError(
                f"{path} may belong to {owner[path]} or to {relative}",
                hint="keep the folders of the images in the folder of predictions",
            )
        found[str(relative)], owner[path] = path, str(relative)
    return found


def id_table(folder: Path, classes: ClassList) -> tuple[NDArray[np.int32] | None, list[str]]:
    """What the values in the label files of a folder mean.

    Returns:
        [65536]: value -> class id, C for "no class of this data set", -2 for a value that has no meaning; None
        where nothing says so and values are class ids. And notes for the user.

    Raises:
        DatasetError: the folder's own classes have no name in common with the data set's.
    """
    for place in (folder, folder.parent):
        for name in TABLES:
            entries = _class_entries(place / name)
            if entries:
                return _table(entries, classes, place / name)
    return None, []


@dataclass(eq=False, kw_only=True)
class PredictionScoring(Scoring):
    """Prepared predictions; iterating scores every image of this process's share.

    Attributes:
        files: image -> its prediction.
        table: value in a file -> class id, as `id_table` gives it.
        folder: of the predictions.
        total: images of this share that have a prediction.
    """

    files: dict[str, Path]
    table: NDArray[np.int32] | None
    folder: Path

    def __post_init__(self) -> None:
        super().__post_init__()
        named = [s for s in self.dataset.samples if s.source.name in self.files]
        self._samples = self.share.of(named)
        self.total = len(self._samples)

    def __iter__(self) -> Generator[ScoredImage, None, None]:
        """Images in the order of the list."""
        with ThreadPoolExecutor(max(2, self.config.workers), thread_name_prefix="score") as pool:
            pending: deque[Future[ScoredImage]] = deque()
            try:
                for sample in self._samples:
                    pending.append(pool.submit(self._score, sample))
                    if len(pending) > 4 * self.config.workers:
                        yield self._add(pending.popleft().result())
                while pending:
                    yield self._add(pending.popleft().result())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _score(self, sample: Sample) -> ScoredImage:
        name = sample.source.name
        classes = len(self.dataset.classes)
        path = self.files[name]
        try:
            given = label_size(path)
            truth = read_label(sample, self.dataset)
            size = size_to_score(truth.shape[0], truth.shape[1], self.protocol)
            if given not in (truth.shape, size):
                raise DatasetError(
                    f"{path} is {given[1]}x{given[0]}, but its ground truth {sample.label} is "
                    f"{truth.shape[1]}x{truth.shape[0]}",
                    hint="labels are scored at their own size: save predictions at the size of the image",
                )
            labels = prediction_ids(read_values(path), self.table, classes, path)
            truth = resize_labels(truth, size)
            matrix = confusion_matrix(
                torch.from_numpy(resize_labels(labels, size)), torch.from_numpy(truth), classes
            )
        except ClipsegError as error:
            return ScoredImage(name, 0, error=error)
        return ScoredImage(name, 0, matrix)


def prediction_ids(
    values: NDArray[np.integer[Any]], table: NDArray[np.int32] | None, classes: int, path: Path
) -> NDArray[np.int32]:
    """Class ids [H, W] of a prediction, C where it has no class of the data set.

    Raises:
        DatasetError: a value that means nothing; the message names file and value.
    """
    if table is not None:
        ids = np.take(table, values)
    else:
        ignore = ignore_value(classes)
        ids = values.astype(np.int32)
        ids[(values >= classes) & (values != ignore)] = -2
        ids[values == ignore] = classes
    wrong = ids == -2
    if wrong.any():
        value = int(values[wrong].flat[0])
        known = f"ids go from 0 to {classes - 1}, {ignore_value(classes)} is none"
        if table is not None:
            known = f"those are named in {TABLES[0]} or {TABLES[1]} beside it"
        raise DatasetError(
            f"{path} holds {value} in {int(wrong.sum()):,} pixels, which is no class: {known}",
            hint="predictions are class ids of the same benchmark; see --benchmark",
        )
    return ids


def _class_entries(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        entries = [{"id": int(entry["id"]), "name": str(entry["name"])} for entry in data["classes"]]
        return entries if all(entry["id"] in range(LABEL_VALUES) for entry in entries) else []
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def _table(
    entries: list[dict[str, Any]], classes: ClassList, path: Path
) -> tuple[NDArray[np.int32], list[str]]:
    known = {name.casefold(): i for i, name in enumerate(classes.names)}
    table = np.full(LABEL_VALUES, -2, dtype=np.int32)
    table[ignore_value(len(entries))] = len(classes)
    strange = []
    for entry in entries:
        id_ = known.get(entry["name"].casefold())
        if id_ is None:
            strange.append(entry["name"])
        table[entry["id"]] = len(classes) if id_ is None else id_
    if len(strange) == len(entries):
        raise DatasetError(
            f"{path} names other classes than this data set: {listed(strange)}",
            hint=f"this data set has {listed(classes.names)}",
        )
    notes = [f"labels are matched by the names in {path}"]
    if strange:
        notes.append(f"pixels with {listed(strange)} count as wrong: no classes of this data set")
    return table, notes


def _label_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.png")):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path
