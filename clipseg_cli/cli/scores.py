"""What `clipseg eval` shows: scores as tables, published figures beside them, a protocol spelt out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipseg_cli.cli.console import Console
    from clipseg_cli.config import EvalConfig
    from clipseg_cli.evaluation.model_scoring import ModelScoring
    from clipseg_cli.evaluation.predictions import PredictionScoring
    from clipseg_cli.evaluation.report import Report

SUMMARY_NAMES = {
    "mIoU": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mIoU_seen": "mIoU(S), seen classes",
    "mIoU_unseen": "mIoU(U), unseen classes",
    "hIoU": "hIoU, harmonic mean of both",
}
OWN = "this run"
MAX_LIST = 60  # letters of a list of words; --verbose prints it whole


def show_report(report: Report, evaluation: ModelScoring | PredictionScoring, console: Console) -> None:
    """All tables; none where no image could be scored."""
    if report.images:
        _show_classes(report, evaluation.dataset.benchmark or evaluation.dataset.title, console)
        _show_corruptions(report, console)
        _show_published(report, getattr(evaluation, "model", "predictions"), console)
        if report.protocol:
            console.say(f"Protocol {report.protocol}, fingerprint {report.fingerprint}")


def _show_classes(report: Report, title: str, console: Console) -> None:
    split = any(row["zero_shot"] for row in report.classes)
    total = sum(row["labelled_pixels"] for row in report.classes) or 1
    console.table(
        f"{title}, in %",
        ("class", *(("",) if split else ()), "IoU", "accuracy", "of the pixels"),
        [
            (
                row["name"],
                *((row["zero_shot"],) if split else ()),
                as_percent(row["iou"]),
                as_percent(row["accuracy"]),
                f"{100 * row['labelled_pixels'] / total:.1f}",
            )
            for row in report.classes
        ],
    )
    rows = [
        (SUMMARY_NAMES[key], as_percent(value)) for key, value in report.summary.items() if value is not None
    ]
    console.table("", ("all together", "in %"), rows)


def _show_corruptions(report: Report, console: Console) -> None:
    found = report.corruptions
    if found is None:
        return
    console.table(
        "Corrupted images, mIoU in %",
        ("corruption", *(f"severity {severity}" for severity in found.severities), "mean"),
        [
            (name, *map(as_percent, values), as_percent(sum(values) / len(values)))
            for name, values in found.table.items()
        ],
    )
    clean, mean = report.summary["mIoU"], as_percent(found.mean)
    console.table(
        "", ("", "mIoU in %"), [("clean images", as_percent(clean)), ("mean of corrupted ones", mean)]
    )
    for row in report.published_corruptions:
        console.say(
            f"Published: {row.method} {row.backbone}, {row.corruption} {row.severity}: {row.value:.1f}, "
            f"clean {row.clean:.1f} ({row.source})"
        )


def _show_published(report: Report, model: str, console: Console) -> None:
    """What others reached on this benchmark; this run in its place among them, if it is about the same images."""
    own = report.summary["mIoU"]
    same = report.expected_images in (None, report.images)
    if report.published:
        rows: list[tuple[float, tuple[str, ...]]] = [
            (r.value, (r.method, r.backbone, f"{r.value:.1f}", r.source)) for r in report.published
        ]
        if own is not None and same:
            rows.append((100 * own, (OWN, model, as_percent(own), "")))
        rows.sort(key=lambda row: row[0])
        console.table(
            "Published for this benchmark, mIoU in %",
            ("method", "backbone", "mIoU", "source"),
            [row for _, row in rows],
            left=(0, 1, 3),
            wrap=(0, 1, 3),
        )
        for r in report.published:
            if r.note:
                console.detail(f"{r.method} {r.backbone}: {r.note}")
    if report.zero_shot:
        table: list[tuple[str, ...]] = [
            (r.method, _plain(r.unseen), _plain(r.all), _plain(r.harmonic)) for r in report.zero_shot
        ]
        if same and report.preset:
            figures = (report.summary["mIoU_unseen"], own, report.summary["hIoU"])
            table.append((OWN, *map(as_percent, figures)))
        console.table(
            f"Published zero-shot results, {report.zero_shot_split}, mIoU in %",
            ("method", "unseen", "all", "harmonic"),
            table,
        )
        console.say(f"Source: {report.zero_shot_source}")
        if not report.preset:
            console.say(
                "Note: these are about other unseen classes (--unseen preset): they cannot be compared"
            )
    if (report.published or report.zero_shot) and not same:
        console.say(
            f"Note: published figures are about {report.expected_images:,} images, this run about "
            f"{report.images:,}: they cannot be compared"
        )


def show_protocol(config: EvalConfig, console: Console) -> None:
    """Every setting as a table, or one JSON document."""
    from clipseg_cli.evaluation.protocol_sheet import describe_protocol

    described = describe_protocol(config)
    if console.as_json:
        console.document(described)
        return
    name = ", but ".join(filter(None, (described["protocol"], ", ".join(described["changed"]))))
    where = described["benchmark"] or config.dataset
    texts = [_value(setting["value"]) for setting in described["settings"]]
    short = [text if console.verbose or len(text) <= MAX_LIST else f"{text[:MAX_LIST]}..." for text in texts]
    console.table(
        f"Protocol {name} on {where}, fingerprint {described['fingerprint']}",
        ("setting", "value", ""),
        [(s["name"], text, s["meaning"]) for s, text in zip(described["settings"], short, strict=True)],
        left=(0, 1, 2),
        wrap=(1, 2),
    )
    console.table(
        "Steps, in the order of execution",
        ("step", "scope", "what it does"),
        [(_step(step), step["scope"], step["meaning"]) for step in described["steps"]],
        left=(0, 1, 2),
        wrap=(2,),
    )
    if short != texts:
        console.say("Long lists are cut; --verbose and --json print them whole")
    console.say(f"Source: {described['source']}")


def _step(step: dict[str, Any]) -> str:
    """As in "pamr 10, dilations 8, 16"."""
    own = {name: value for name, value in step["settings"].items() if value is not True}
    texts = [_value(list(v)) if isinstance(v, tuple) else _value(v) for v in own.values()]
    named = [text if name == "value" else f"{name} {text}" for name, text in zip(own, texts, strict=True)]
    return f"{step['name']} {', '.join(named)}".strip()


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join("|".join(item) if isinstance(item, list) else str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def as_percent(value: float | None) -> str:
    """As in "52.0"; "-" for a figure that is not defined."""
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
