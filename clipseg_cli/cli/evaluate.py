"""`clipseg eval`: parse, call, show."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console, Stopwatch, count, format_seconds
from clipseg_cli.config import EvalConfig
from clipseg_cli.errors import ClipsegError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipseg_cli.pipelines.evaluate import Evaluation
    from clipseg_cli.pipelines.predictions import PredictionScoring
    from clipseg_cli.pipelines.report import Report

EXAMPLES = """
[bold]Examples[/bold]
  clipseg eval
  clipseg eval --dataset voc/ --benchmark voc20 --protocol maskclip
  clipseg eval --dataset voc/ --prompt-denoising 0.5 --key-smoothing 1.0
  clipseg eval --dataset voc/ --corrupt all --severity 1..5
  clipseg eval --dataset voc/ --predictions labels/ --unseen sofa,train
  clipseg eval --protocol sclip --benchmark cityscapes --show-protocol
"""


def evaluate(
    ctx: typer.Context,
    dataset: opt.DatasetOpt = EvalConfig.dataset,
    run: opt.RunOpt = "",
    benchmark: opt.BenchmarkOpt = EvalConfig.benchmark,
    split: opt.SplitOpt = EvalConfig.split,
    predictions: opt.PredictionsOpt = EvalConfig.predictions,
    partial: opt.PartialOpt = EvalConfig.partial,
    unseen: opt.UnseenOpt = EvalConfig.unseen,
    corrupt: opt.CorruptOpt = [],  # noqa: B006  (Typer copies it)
    severity: opt.SeverityOpt = "1..5",
    seed: opt.SeedOpt = EvalConfig.seed,
    classes: opt.DataClassesOpt = EvalConfig.classes,
    background: opt.DataBackgroundOpt = EvalConfig.background,
    background_threshold: opt.BackgroundThresholdOpt = EvalConfig.background_threshold,
    templates: opt.TemplatesOpt = EvalConfig.templates,
    model: opt.ModelOpt = EvalConfig.model,
    pretrained: opt.PretrainedOpt = EvalConfig.pretrained,
    method: opt.MethodOpt = EvalConfig.method,
    protocol: opt.ProtocolOpt = EvalConfig.protocol,
    show_protocol: opt.ShowProtocolOpt = False,
    prompt_denoising: opt.PromptDenoisingOpt = EvalConfig.prompt_denoising,
    key_smoothing: opt.KeySmoothingOpt = EvalConfig.key_smoothing,
    short_side: opt.ShortSideOpt = EvalConfig.short_side,
    window: opt.WindowOpt = EvalConfig.window,
    stride: opt.StrideOpt = EvalConfig.stride,
    batch_size: opt.BatchSizeOpt = EvalConfig.batch_size,
    device: opt.DeviceOpt = EvalConfig.device,
    precision: opt.PrecisionOpt = EvalConfig.precision,
    max_megapixels: opt.MaxMegapixelsOpt = EvalConfig.max_megapixels,
    workers: opt.WorkersOpt = EvalConfig.workers,
    out: opt.RunsOpt = EvalConfig.out,
    name: opt.NameOpt = EvalConfig.name,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Score label maps against ground truth: those of a model, or the pictures that any tool has made.

    Prints the IoU of each class, mIoU and accuracies, and what was published for the same benchmark; writes
    results.json, results.csv and confusion.png. Without a data set it takes the newest run of clipseg pseudolabel.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    if show_protocol:
        _show_protocol(opt.config_from(EvalConfig, ctx.params), console)
        return
    with ExitStack() as stack:
        with console.waiting("loading"):
            config, why = _config(ctx, run)
            if why:
                console.say(why)
            if config.predictions:
                from clipseg_cli.pipelines.predictions import open_predictions

                evaluation: Evaluation | PredictionScoring = open_predictions(config)
            else:
                from clipseg_cli.pipelines.evaluate import open_evaluation

                evaluation = stack.enter_context(open_evaluation(config))
        _score(evaluation, console)


def _config(ctx: typer.Context, run: str) -> tuple[EvalConfig, str]:
    """What to evaluate, and a sentence on how it was chosen where the user did not say.

    Raises:
        ClipsegError: a data set and a run were named, or neither is to be found.
    """
    given = opt.given_options(ctx)
    if given.get("dataset"):
        if run:
            raise UsageError("--run brings its own data set", hint="leave out --run or --dataset")
        return opt.config_from(EvalConfig, ctx.params), ""
    from pathlib import Path

    from clipseg_cli.pipelines.runs import config_of_labels, config_of_run, newest_run

    fields = {key: value for key, value in given.items() if key in EvalConfig.__dataclass_fields__}
    if given.get("predictions") and not run:
        return config_of_labels(given["predictions"], fields), ""
    if run:
        return config_of_run(Path(run), fields), ""
    folder, why = newest_run()
    config = config_of_run(folder, fields)
    return config, f"Evaluating {config.model} as in {folder}, {why}, on {config.dataset}"


def _score(evaluation: Evaluation | PredictionScoring, console: Console) -> None:
    """Go through all images, name each that failed, and show the report.

    Raises:
        KeyboardInterrupt: with a sentence.
        typer.Exit: with code 1 where images failed.
    """
    from clipseg_cli.pipelines.evaluate import Evaluation
    from clipseg_cli.pipelines.report import write_report

    first = not isinstance(evaluation, Evaluation) or evaluation.share.index == 0
    if not first:
        console = Console(quiet=True)  # torchrun shows all ranks on one terminal
    data = evaluation.dataset
    kind = f" ({data.labels_are})" if data.labels_are else ""
    where = f"{data.title}, {data.split} split" if data.split else data.title
    console.say(
        f"{data.root}: {where}, {count(len(data.samples), 'image')}, {count(len(data.classes), 'class')}{kind}"
    )
    if isinstance(evaluation, Evaluation):
        console.say(f"{evaluation.model} on {evaluation.device}")
    for note in evaluation.notes:
        console.say(f"Note: {note}")
    watch = Stopwatch()
    done = 0
    try:
        with (
            console.progress("evaluating", total=evaluation.total) as advance,
            closing(iter(evaluation)) as results,
        ):
            for result in results:
                done += 1
                if result.error is not None:
                    console.error(result.error)
                else:
                    console.detail(f"{result.image} {evaluation.conditions[result.condition]}")
                advance()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted after {done} of {count(evaluation.total, 'image')}") from None
    seconds = watch.seconds
    report = write_report(evaluation, seconds)
    if first:
        _show(report, evaluation, console)
        console.say(
            f"{count(report.images, 'image')} in {format_seconds(seconds)}, results in {report.folder}"
        )
    if report.failed:
        total = report.images + report.failed
        console.error(
            ClipsegError(f"{report.failed} of {count(total, 'image')} failed and are not in the scores")
        )
        raise typer.Exit(1)


def _show(report: Report, evaluation: Evaluation | PredictionScoring, console: Console) -> None:
    if console.as_json:
        console.document(
            {**asdict(report), "folder": str(report.folder), "written": list(map(str, report.written))}
        )
        return
    title = evaluation.dataset.benchmark or evaluation.dataset.title
    unseen = any(row["zero_shot"] == "unseen" for row in report.classes)
    total = sum(row["labelled_pixels"] for row in report.classes) or 1
    console.table(
        f"{title}, IoU in %",
        ("class", *(("",) if unseen else ()), "IoU", "accuracy", "of the pixels"),
        [
            (
                row["name"],
                *((row["zero_shot"],) if unseen else ()),
                _percent(row["iou"]),
                _percent(row["accuracy"]),
                f"{100 * row['labelled_pixels'] / total:.1f}",
            )
            for row in report.classes
        ],
    )
    names = {
        "mIoU": "mIoU",
        "pixel_accuracy": "pixel accuracy",
        "mean_accuracy": "mean accuracy",
        "mIoU_seen": "mIoU(S), seen",
        "mIoU_unseen": "mIoU(U), unseen",
        "hIoU": "hIoU",
    }
    rows = [(names[key], _percent(value)) for key, value in report.summary.items() if value is not None]
    console.table("All together, in %", ("", ""), rows)
    if report.protocol:
        console.say(f"Protocol {report.protocol}, fingerprint {report.fingerprint}")
    _show_corruptions(report, console)
    _show_published(report, console)


def _show_corruptions(report: Report, console: Console) -> None:
    found = report.corruptions
    if found is None:
        return
    rows = [
        (name, *map(_percent, values), _percent(sum(values) / len(values)))
        for name, values in found.table.items()
    ]
    columns = ("corruption", *(f"severity {severity}" for severity in found.severities), "mean")
    console.table("Corrupted images, mIoU in %", columns, rows)
    clean = report.summary["mIoU"]
    console.table(
        "",
        ("", ""),
        [("clean mIoU", _percent(clean)), ("mean corrupted mIoU", _percent(found.mean))],
    )
    for row in report.published_corruptions:
        console.say(
            f"Published: {row.method} {row.backbone}, {row.corruption} {row.severity}: {row.value:.1f}, "
            f"clean {row.clean:.1f} ({row.source})"
        )


def _show_published(report: Report, console: Console) -> None:
    """What others reached on this benchmark, with this run in its place among them."""
    own = report.summary["mIoU"]
    images = report.images + report.failed
    comparable = report.expected_images in (None, images)
    if report.published:
        rows: list[tuple[float, tuple[str, ...]]] = [
            (r.value, (r.method, r.backbone, f"{r.value:.1f}", r.source)) for r in report.published
        ]
        if own is not None and comparable:
            rows.append((100 * own, ("this run", "", f"{100 * own:.1f}", str(report.folder))))
        rows.sort(key=lambda row: row[0])
        console.table(
            "Published for this benchmark, mIoU in %",
            ("method", "backbone", "mIoU", "source"),
            [row for _, row in rows],
            left=(0, 1, 3),
        )
    if report.zero_shot:
        console.table(
            f"Published zero-shot results, {report.zero_shot_split}, mIoU in %",
            ("method", "unseen", "all", "harmonic"),
            [(r.method, _plain(r.unseen), _plain(r.all), _plain(r.harmonic)) for r in report.zero_shot]
            + [
                (
                    "this run",
                    _percent(report.summary["mIoU_unseen"]),
                    _percent(own),
                    _percent(report.summary["hIoU"]),
                )
            ],
        )
        console.say(f"Source: {report.zero_shot_source}")
    if (report.published or report.zero_shot) and not comparable:
        console.say(
            f"Note: published figures are about {report.expected_images:,} images, this run about {images:,}: "
            "they cannot be compared"
        )


def _show_protocol(config: EvalConfig, console: Console) -> None:
    from clipseg_cli.pipelines.protocols import describe_protocol

    described = describe_protocol(config)
    if console.as_json:
        console.document(described)
        return
    settings: Sequence[dict[str, Any]] = described["settings"]
    console.table(
        f"Protocol {described['protocol']} on {described['benchmark']}, fingerprint {described['fingerprint']}",
        ("setting", "value", ""),
        [(s["name"], _value(s["value"]), s["meaning"]) for s in settings],
        left=(0, 1, 2),
    )
    console.say(f"Source: {described['source']}")


def _value(value: Any) -> str:
    if isinstance(value, list):
        texts = ["|".join(item) if isinstance(item, list) else str(item) for item in value]
        line = ", ".join(texts)
        return line if len(line) <= 60 else f"{line[:57]}..."
    return f"{value:g}" if isinstance(value, float) else str(value)


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
