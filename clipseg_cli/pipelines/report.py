"""From counted pixels to what a person reads: scores, published figures beside them, and files in a run folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.data.published import corruption_rows, published_rows, validation_images, zero_shot_rows
from clipseg_cli.outputs import class_rows, safe_name, thumbnail, write_corruption_grid, write_scores
from clipseg_cli.pipelines.about import describe_model, versions
from clipseg_cli.pipelines.data import list_hash
from clipseg_cli.pipelines.evaluate import Evaluation, mean_corrupted
from clipseg_cli.pipelines.protocols import fingerprint, overruled, protocol_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipseg_cli.data.published import Corrupted, Published, ZeroShot
    from clipseg_cli.ops.metrics import Scores
    from clipseg_cli.pipelines.predictions import PredictionScoring

SHEET = "corruptions.png"
SUMMARY = ("mIoU", "pixel_accuracy", "mean_accuracy", "mIoU_seen", "mIoU_unseen", "hIoU")


@dataclass(frozen=True)
class Corruptions:
    """Scores on corrupted pictures.

    Attributes:
        severities: columns of the table.
        table: corruption -> mIoU in [0, 1] for each severity.
        mean: over all of them.
        sheet: a small picture of each.
    """

    severities: tuple[int, ...]
    table: dict[str, list[float]]
    mean: float
    sheet: Path


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        folder: where its files are.
        written: these files.
        images, failed: how many pictures were scored, and how many could not be.
        summary: figures in [0, 1] under the names of SUMMARY; None where a figure is not defined.
        classes: a row for each class, as in `results.json`.
        protocol, fingerprint: under which settings.
        expected_images: how many pictures the published figures are about; None if unknown.
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
    published: list[Published]
    zero_shot: list[ZeroShot]
    zero_shot_split: str
    zero_shot_source: str
    published_corruptions: list[Corrupted]
    corruptions: Corruptions | None


def write_report(evaluation: Evaluation | PredictionScoring, seconds: float) -> Report:
    """Score what has been counted, and write the files of the run.

    These are `results.json`, `results.csv`, `confusion.png` and, where pictures were corrupted, `corruptions.png`.
    Under torchrun every rank must call this; only the first writes.

    Args:
        evaluation: after it has been iterated to its end.
        seconds: that this took.

    Raises:
        OutputError: a file cannot be written.
    """
    matrices = evaluation.matrices()
    scores = [evaluation.scores(matrix) for matrix in matrices]
    config, dataset = evaluation.config, evaluation.dataset
    folder = config.out / (config.name or _default_name(evaluation))
    unseen = tuple(dataset.classes.names[i] for i in evaluation.unseen)
    summary = _summary(scores[0])
    corruptions = _corruptions(evaluation, scores, folder)
    name, print_ = _protocol(evaluation)
    failures = evaluation.failures
    images = len(dataset.samples) if isinstance(evaluation, Evaluation) else evaluation.total
    rows, split, source = zero_shot_rows(dataset.benchmark or "") if unseen else ([], "", "")
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
        "protocol": {"name": name, "source": evaluation.protocol.source, **_settings(evaluation)},
        "corruptions": corruptions
        and {"table": corruptions.table, "mean": corruptions.mean, "seed": config.seed},
        "published": [dataclasses.asdict(row) for row in published_rows(dataset.benchmark or "")],
        "seconds": seconds,
        "versions": versions(),
    }
    written = write_scores(record, matrices[0], dataset.classes, folder) if _first(evaluation) else []
    return Report(
        folder=folder,
        written=(*written, *([corruptions.sheet] if corruptions else ())),
        images=images - len(failures),
        failed=len(failures),
        summary=summary,
        classes=class_rows(matrices[0], dataset.classes, unseen),
        protocol=name,
        fingerprint=print_,
        expected_images=validation_images(dataset.benchmark or ""),
        published=published_rows(dataset.benchmark or ""),
        zero_shot=rows,
        zero_shot_split=split,
        zero_shot_source=source,
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
    evaluation: Evaluation | PredictionScoring, scores: Sequence[Scores], folder: Path
) -> Corruptions | None:
    if len(scores) == 1 or not isinstance(evaluation, Evaluation):
        return None
    table: dict[str, list[float]] = {}
    for condition, found in zip(evaluation.conditions[1:], scores[1:], strict=True):
        table.setdefault(condition.corruption or "", []).append(found.miou)
    severities = evaluation.config.severity
    sheet = folder / SHEET
    if _first(evaluation):
        clean = f"mIoU {100 * scores[0].miou:.1f}"
        rows = [(name, [thumbnail(p) for p in row]) for name, row in evaluation.corrupted_examples()]
        captions = [[clean, *(f"mIoU {100 * value:.1f}" for value in table[name])] for name, _ in rows]
        columns = ("clean", *(f"severity {severity}" for severity in severities))
        write_corruption_grid(rows, columns, sheet, captions)
    values = [value for row in table.values() for value in row]
    return Corruptions(severities, table, mean_corrupted(values), sheet)


def _what(evaluation: Evaluation | PredictionScoring) -> dict[str, Any]:
    """What was scored: a model and a method, or somebody's predictions."""
    config = evaluation.config
    if not isinstance(evaluation, Evaluation):
        return {"method": None, "model": None, "predictions": evaluation.folder.resolve()}
    return {
        "method": config.method,
        "model": describe_model(evaluation.backbone, evaluation.predictor),
        "settings": evaluation.predictor.describe(),
        "options": {
            "prompt_denoising": config.prompt_denoising,
            "key_smoothing": config.key_smoothing,
            "batch_size": config.batch_size,
        },
    }


def _protocol(evaluation: Evaluation | PredictionScoring) -> tuple[str, str]:
    """Name of the protocol, with what the user changed of it, and its fingerprint; none for predictions."""
    if not isinstance(evaluation, Evaluation):
        return "", ""
    config, protocol = evaluation.config, evaluation.protocol
    changed = overruled(protocol, config)
    name = protocol.name + (f", but {', '.join(changed)}" if changed else "")
    settings = protocol_settings(protocol, config, evaluation.dataset.classes, evaluation.plan.templates)
    return name, fingerprint(evaluation.dataset.benchmark, settings)


def _settings(evaluation: Evaluation | PredictionScoring) -> dict[str, Any]:
    if not isinstance(evaluation, Evaluation):
        return {}
    settings = protocol_settings(
        evaluation.protocol, evaluation.config, evaluation.dataset.classes, evaluation.plan.templates
    )
    return {name: value for name, value, _ in settings}


def _default_name(evaluation: Evaluation | PredictionScoring) -> str:
    """As in "VOC2012-voc21-val-ViT-B-16-maskclip-sclip"."""
    dataset, config = evaluation.dataset, evaluation.config
    parts: list[str | None] = [dataset.root.resolve().name, dataset.benchmark, Path(dataset.split).stem]
    if isinstance(evaluation, Evaluation):
        parts += [config.model, config.method]
        parts += [f"pd{config.prompt_denoising:g}" if config.prompt_denoising else None]
        parts += [f"ks{config.key_smoothing:g}" if config.key_smoothing else None]
        parts += [config.protocol if config.protocol != "default" else None]
        parts += ["corrupted" if config.corrupt else None]
    else:
        folder = evaluation.folder.resolve()
        own = folder.parent.name if folder.name == "labels" else folder.name
        # A run of ours is called after data set and split already.
        return (
            safe_name(own)
            if own.startswith(parts[0] or "")
            else "-".join(map(safe_name, (*filter(None, parts), own)))
        )
    return "-".join(safe_name(part) for part in parts if part)


def _first(evaluation: Evaluation | PredictionScoring) -> bool:
    return not isinstance(evaluation, Evaluation) or evaluation.share.index == 0
