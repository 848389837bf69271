"""From counted pixels to what a person reads: scores, published figures beside them, and files in a run folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import REFINEMENTS
from clipseg_cli.data.published import corruption_rows, published_rows, validation_images, zero_shot_rows
from clipseg_cli.evaluation.model_scoring import ModelScoring
from clipseg_cli.evaluation.protocol_sheet import fingerprint, protocol_settings, protocol_title
from clipseg_cli.evaluation.scoring import mean_corrupted
from clipseg_cli.inference.dataset import list_hash
from clipseg_cli.outputs import class_rows, write_scores, write_sheet
from clipseg_cli.runs.provenance import describe_model, versions
from clipseg_cli.utils.distributed import wait_for_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from clipseg_cli.data.published import Corrupted, Published, ZeroShot
    from clipseg_cli.evaluation.predictions import PredictionScoring
    from clipseg_cli.ops.metrics import Scores

SHEET = "corruptions.png"
SUMMARY = ("mIoU", "pixel_accuracy", "mean_accuracy", "mIoU_seen", "mIoU_unseen", "hIoU")


@dataclass(frozen=True)
class Corruptions:
    """Scores on corrupted images.

    Attributes:
        severities: columns of the table.
        table: corruption -> mIoU in [0, 1] for each severity.
        mean: over all of them.
        sheet: file with a small image of each; None where no image could be scored.
    """

    severities: tuple[int, ...]
    table: dict[str, list[float]]
    mean: float
    sheet: Path | None


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        folder: where its files are.
        written: these files; none where no image could be scored.
        images, failed: how many images were scored, and how many could not be.
        summary: figures in [0, 1] under the names of SUMMARY; None where a figure is not defined.
        classes: a row for each class, as in `results.json`.
        protocol, fingerprint: under which settings.
        expected_images: how many images the published figures are about; None if unknown.
        preset: the unseen classes are those of the published zero-shot figures.
        published, zero_shot, zero_shot_split, zero_shot_source, published_corruptions: figures of the same
            benchmark, in %.
        corruptions: None without any.
    """

    folder: Path
    written: tuple[Path, ...]
    images: int
    failed: int
    summary: dict[str, float | None]
    classes: list[dict[str, Any]]
    protocol: str
    fingerprint: str
    expected_images: int | None
    preset: bool
    published: list[Published]
    zero_shot: list[ZeroShot]
    zero_shot_split: str
    zero_shot_source: str
    published_corruptions: list[Corrupted]
    corruptions: Corruptions | None


def write_report(evaluation: ModelScoring | PredictionScoring, seconds: float) -> Report:
    """Score what has been counted, and write the files of the run.

    These are `results.json`, `results.csv`, `confusion.png` and, where images were corrupted, `corruptions.png`.
    Under torchrun every rank must call this; only the first writes.

    Args:
        evaluation: after it has been iterated to its end.
        seconds: that this took.

    Raises:
        OutputError: a file cannot be written.
    """
    first = evaluation.share.index == 0
    matrices = evaluation.matrices()
    scores = [evaluation.scores(matrix) for matrix in matrices]
    config, dataset, folder = evaluation.config, evaluation.dataset, evaluation.out
    unseen = tuple(dataset.classes.names[i] for i in evaluation.unseen)
    summary = _summary(scores[0])
    failures, images = evaluation.failures, evaluation.images
    corruptions = _corruptions(evaluation, scores, folder, draw=first and len(failures) < images)
    name, print_, settings = _protocol(evaluation)
    zero_shot = zero_shot_rows(dataset.benchmark or "") if unseen else ([], "", "")
    published = published_rows(dataset.benchmark or "")
    record = {
        "scores": summary,
        "benchmark": dataset.benchmark,
        "dataset": dataset.title,
        "root": dataset.root.resolve(),
        "split": dataset.split,
        "labels_are": dataset.labels_are,
        "images": images - len(failures),
        "images_sha256": list_hash(dataset.samples),
        "failed": failures,
        "unseen": unseen,
        **_what(evaluation),
        "fingerprint": print_,
        "protocol": {"name": name, "source": evaluation.protocol.source, **settings},
        "corruptions": corruptions and {**dataclasses.asdict(corruptions), "seed": config.seed},
        "published": [dataclasses.asdict(row) for row in published],
        "published_zero_shot": [dataclasses.asdict(row) for row in zero_shot[0]],
        "seconds": seconds,
        "versions": versions(),
    }
    # Of no image nothing is known; what an earlier run has found out stays.
    known = len(failures) < images
    written = write_scores(record, matrices[0], dataset.classes, folder) if first and known else []
    if corruptions and corruptions.sheet:
        written.append(corruptions.sheet)
    wait_for_all(evaluation.share)  # torchrun ends all ranks when one leaves with an error
    return Report(
        folder=folder,
        written=tuple(written),
        images=images - len(failures),
        failed=len(failures),
        summary=summary,
        classes=class_rows(matrices[0], dataset.classes, unseen),
        protocol=name,
        fingerprint=print_,
        expected_images=validation_images(dataset.benchmark or ""),
        preset=bool(unseen) and set(unseen) == set(dataset.unseen),
        published=published,
        zero_shot=zero_shot[0],
        zero_shot_split=zero_shot[1],
        zero_shot_source=zero_shot[2],
        published_corruptions=corruption_rows(dataset.benchmark or "") if corruptions else [],
        corruptions=corruptions,
    )


def _summary(scores: Scores) -> dict[str, float | None]:
    values = (
        scores.miou,
        scores.pixel_accuracy,
        scores.mean_accuracy,
        scores.miou_seen,
        scores.miou_unseen,
        scores.hiou,
    )
    return dict(zip(SUMMARY, values, strict=True))


def _corruptions(
    evaluation: ModelScoring | PredictionScoring, scores: Sequence[Scores], folder: Path, *, draw: bool
) -> Corruptions | None:
    if len(scores) == 1 or not isinstance(evaluation, ModelScoring):
        return None
    table: dict[str, list[float]] = {}
    for condition, found in zip(evaluation.conditions[1:], scores[1:], strict=True):
        table.setdefault(condition.corruption or "", []).append(found.miou)
    severities = evaluation.config.severity
    sheet = folder / SHEET if draw else None
    if sheet:
        clean = f"mIoU {100 * scores[0].miou:.1f}"
        rows = evaluation.corrupted_examples()
        captions = [[clean, *(f"mIoU {100 * value:.1f}" for value in table[name])] for name, _ in rows]
        columns = ("clean", *(f"severity {severity}" for severity in severities))
        names, images = [name for name, _ in rows], [row for _, row in rows]
        write_sheet(sheet, images, names=names, columns=columns, captions=captions)
    values = [value for row in table.values() for value in row]
    return Corruptions(severities, table, mean_corrupted(values), sheet)


def _what(evaluation: ModelScoring | PredictionScoring) -> dict[str, Any]:
    """What was scored: a model and a method, or somebody's predictions."""
    config = evaluation.config
    if not isinstance(evaluation, ModelScoring):
        return {"method": None, "model": None, "predictions": evaluation.folder.resolve()}
    return {
        "method": None if config.student else config.method_name,
        "model": describe_model(evaluation.backbone, evaluation.predictor),
        "settings": evaluation.predictor.describe(),
        "options": {
            "quality": config.quality,
            **{name: getattr(config, name) for name in REFINEMENTS},
            "saliency": evaluation.predictor.saliency_name,
            "batch_size": config.batch_size,
        },
    }


def _protocol(evaluation: ModelScoring | PredictionScoring) -> tuple[str, str, dict[str, Any]]:
    """Title, fingerprint and settings of the protocol; none for predictions, of which they are unknown."""
    if not isinstance(evaluation, ModelScoring):
        return "", "", {}
    config, protocol, dataset = evaluation.config, evaluation.protocol, evaluation.dataset
    settings = protocol_settings(protocol, config, dataset.classes, evaluation.templates)
    digits = fingerprint(dataset.benchmark, settings)
    return protocol_title(protocol, config), digits, {name: value for name, value, _ in settings}
