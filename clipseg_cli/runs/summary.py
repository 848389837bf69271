"""The end of a pseudo-label run: counts over all images, the final manifest and the contact sheet."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.config import ignore_value
from clipseg_cli.data.images import read_image
from clipseg_cli.data.labels import read_values
from clipseg_cli.errors import ClipsegError, DatasetError, RunError
from clipseg_cli.outputs import write_contact_sheet
from clipseg_cli.outputs.confidence import ENDING as CONFIDENCE
from clipseg_cli.runs.features import kept_features
from clipseg_cli.runs.manifest import Manifest, is_written, read_manifest, write_manifest
from clipseg_cli.runs.records import FINAL, WORKERS, final_bytes, write_final
from clipseg_cli.types import ClassShare
from clipseg_cli.utils.files import settle, sweep_leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.runs.records import ImageRecord
    from clipseg_cli.types import Dataset, Sample

LABELS = "labels"
SHEET = "summary.png"
SHOWN = 24
"""Images on the contact sheet, evenly spread over the list."""


@dataclass(frozen=True)
class ClassTotal:
    """One class over a whole run.

    Attributes:
        pixels: how many have its label.
        share: of all pixels, ignored ones too.
        images: in how many images it occurs.
        confidence: mean score of the pixels that the model gave it; None if there are none.
    """

    id: int
    name: str
    pixels: int
    share: float
    images: int
    confidence: float | None


@dataclass(frozen=True)
class Summary:
    """A complete run.

    Attributes:
        images: images with labels.
        failures: image -> why it has none.
        pixels: of all label maps together.
        ignored, kept: shares of them, in [0, 1]: without a label, and with ground truth.
        classes: in label order.
    """

    folder: Path
    images: int
    failures: Mapping[str, str]
    pixels: int
    ignored: float
    kept: float
    classes: tuple[ClassTotal, ...]


def label_path(folder: Path, sample: Sample) -> Path:
    """Where the label map of an image lies."""
    return path_of(folder, sample.source.name)


def path_of(folder: Path, image: str) -> Path:
    """Where the label map of an image of that name lies."""
    return folder / LABELS / f"{image}.png"


def confidence_path(folder: Path, image: str) -> Path:
    """Where the confidence of that label map lies, if the run keeps it."""
    return folder / LABELS / f"{image}{CONFIDENCE}"


def finish_run(
    folder: Path, dataset: Dataset, identity: Mapping[str, Any], records: Mapping[str, ImageRecord]
) -> Summary:
    """Write `summary.png`, `images.jsonl` and, last, the complete `manifest.json`; nothing where they are there.

    Args:
        folder: of the run.
        dataset: what was labelled.
        identity: of the run.
        records: of every image of the data set.

    Raises:
        OutputError: one of them cannot be written.
    """
    ordered = [records[sample.source.name] for sample in dataset.samples]
    summary = summarise(folder, dataset, ordered)
    there = read_manifest(folder)
    result = _result(summary)
    if identity["options"].get("keep_features"):
        result["features"] = kept_features(folder, (r.image for r in ordered if not r.error))
    manifest = Manifest(identity, result, there.history if there else ())
    if not _is_finished(folder, manifest, ordered):
        _write_sheet(folder, dataset, summary, records, f"{identity['model']['name']}")
        write_final(ordered, folder)
        settle()  # the manifest says that all is there
        write_manifest(manifest, folder)
    sweep_leftovers({folder, *(path_of(folder, record.image).parent for record in ordered)}, older_than=0)
    return summary


def _is_finished(folder: Path, manifest: Manifest, records: Sequence[ImageRecord]) -> bool:
    """Whether all that describes the run is there, so that a finished run keeps its files as they are.

    The manifest is the last that is written, and is incomplete from the moment that something is done again.
    """
    try:
        return (
            is_written(manifest, folder)
            and (folder / FINAL).read_bytes() == final_bytes(records)
            and (folder / SHEET).stat().st_size > 0
            and not any(folder.glob(WORKERS))
        )
    except FileNotFoundError:
        return False


def _write_sheet(
    folder: Path, dataset: Dataset, summary: Summary, records: Mapping[str, ImageRecord], model: str
) -> None:
    name = dataset.title if dataset.benchmark else dataset.root.resolve().name
    where = f"{name} {dataset.split}".strip()
    images = "image" if summary.images == 1 else "images"
    write_contact_sheet(
        folder / SHEET,
        _shown(folder, dataset, records),
        dataset.classes,
        [ClassShare(c.id, c.name, c.pixels, c.share, c.confidence) for c in summary.classes],
        ignored=summary.ignored,
        title=f"{where}: {summary.images:,} {images} labelled by {model}",
    )


def summarise(folder: Path, dataset: Dataset, records: Sequence[ImageRecord]) -> Summary:
    """Add up the records of all images, in their order, so that equal records give equal sums."""
    good = [record for record in records if not record.error]
    pixels = sum(record.height * record.width for record in good)
    classes = []
    for i, name in enumerate(dataset.classes.names):
        count = sum(record.pixels.get(i, 0) for record in good)
        sums = [record.confidence[i] for record in good if i in record.confidence]
        scored = sum(record.scored.get(i, 0) for record in good)
        classes.append(
            ClassTotal(
                i,
                name,
                count,
                count / pixels if pixels else 0.0,
                sum(i in record.pixels for record in good),
                math.fsum(sums) / scored if scored else None,
            )
        )
    return Summary(
        folder,
        len(good),
        {record.image: record.error for record in records if record.error},
        pixels,
        sum(record.ignored for record in good) / pixels if pixels else 0.0,
        sum(record.kept for record in good) / pixels if pixels else 0.0,
        tuple(classes),
    )


def _result(summary: Summary) -> dict[str, Any]:
    return {
        "images": summary.images,
        "failed": summary.failures,
        "pixels": summary.pixels,
        "ignored": summary.ignored,
        "kept": summary.kept,
        "classes": [dataclasses.asdict(c) for c in summary.classes],
    }


def _shown(
    folder: Path, dataset: Dataset, records: Mapping[str, ImageRecord]
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.int32]]]:
    """Name, image and labels (-1: ignored) of the images on the contact sheet."""
    samples = [s for s in dataset.samples if not records[s.source.name].error]
    ignore = ignore_value(len(dataset.classes))
    for i in range(min(SHOWN, len(samples))):
        sample = samples[i * len(samples) // min(SHOWN, len(samples))]
        try:
            image = read_image(sample.source, max_megapixels=float("inf"))
        except ClipsegError:  # removed since it was labelled
            continue
        path = label_path(folder, sample)
        try:
            labels = read_values(path).astype(np.int32)
        except DatasetError as error:
            raise RunError(error.message, hint=f"remove {path}; the same command makes it anew") from error
        yield sample.source.name, image.pixels, np.where(labels == ignore, -1, labels)
