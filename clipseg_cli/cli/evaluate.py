"""`clipseg eval`: parse, call, show."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import typer

from clipseg_cli.cli import data_options as data_opt
from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console, Stopwatch, count, dataset_line, format_seconds
from clipseg_cli.cli.scores import show_protocol as print_protocol
from clipseg_cli.cli.scores import show_report
from clipseg_cli.config import EvalConfig
from clipseg_cli.errors import ClipsegError, UsageError

if TYPE_CHECKING:
    from clipseg_cli.pipelines.evaluate import Evaluation
    from clipseg_cli.pipelines.predictions import PredictionScoring

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
    dataset: data_opt.DatasetOpt = EvalConfig.dataset,
    run: data_opt.RunOpt = "",
    benchmark: data_opt.BenchmarkOpt = EvalConfig.benchmark,
    split: data_opt.SplitOpt = EvalConfig.split,
    predictions: data_opt.PredictionsOpt = EvalConfig.predictions,
    partial: data_opt.PartialOpt = EvalConfig.partial,
    unseen: data_opt.UnseenOpt = EvalConfig.unseen,
    corrupt: data_opt.CorruptOpt = [],  # noqa: B006  (Typer copies it)
    severity: data_opt.SeverityOpt = "1..5",
    seed: data_opt.SeedOpt = EvalConfig.seed,
    classes: data_opt.DataClassesOpt = EvalConfig.classes,
    background: data_opt.DataBackgroundOpt = EvalConfig.background,
    background_threshold: opt.BackgroundThresholdOpt = EvalConfig.background_threshold,
    templates: opt.TemplatesOpt = EvalConfig.templates,
    model: opt.ModelOpt = EvalConfig.model,
    pretrained: opt.PretrainedOpt = EvalConfig.pretrained,
    method: opt.MethodOpt = EvalConfig.method,
    protocol: opt.ProtocolOpt = EvalConfig.protocol,
    show_protocol: data_opt.ShowProtocolOpt = False,
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
    out: data_opt.RunsOpt = EvalConfig.out,
    name: data_opt.NameOpt = EvalConfig.name,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Score label maps against ground truth: those of a model, or the pictures that any tool has made.

    Prints the IoU of each class, mIoU and accuracies, and what was published for the same benchmark; writes
    results.json, results.csv and confusion.png. Without a data set it takes the newest run of clipseg pseudolabel.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    _check(opt.given_options(ctx))
    if show_protocol:
        config = _config(ctx, run)[0] if run else opt.config_from(EvalConfig, ctx.params)
        print_protocol(config, console)
        return
    with ExitStack() as stack:
        with console.waiting("loading"):
            config, why = _config(ctx, run)
            if why and _first():
                console.say(why)
            if config.predictions:
                from clipseg_cli.pipelines.predictions import open_predictions

                evaluation: Evaluation | PredictionScoring = stack.enter_context(open_predictions(config))
            else:
                from clipseg_cli.pipelines.evaluate import open_evaluation

                evaluation = stack.enter_context(open_evaluation(config))
        _score(evaluation, console)


def _check(given: dict[str, object]) -> None:
    """Refuse options that exclude each other, or do nothing.

    Raises:
        UsageError: there are such.
    """
    for name in ("dataset", "run", "predictions"):
        if not str(given.get(name, "x")).strip():  # as `--dataset "$UNSET"` gives it
            raise UsageError(f"--{name} is empty", hint=f"name a folder, or leave out --{name}")
    if "run" in given and "dataset" in given:
        raise UsageError("--run brings its own data set", hint="leave out --run or --dataset")
    if "run" in given and "predictions" in given:
        raise UsageError(
            "--run asks for the run's model, --predictions for labels that are there",
            hint="leave out one of them; --predictions RUN scores the labels of a run",
        )
    for name, needed in (("severity", "corrupt"), ("seed", "corrupt"), ("partial", "predictions")):
        if name in given and needed not in given:
            raise UsageError(f"--{name} does nothing without --{needed}", hint=f"add --{needed}")


def _first() -> bool:
    """Whether this is not one of torchrun's other processes, which share a terminal with the first."""
    from clipseg_cli.utils.distributed import process_share

    return process_share().index == 0


def _config(ctx: typer.Context, run: str) -> tuple[EvalConfig, str]:
    """What to evaluate, and a sentence on how it was chosen where the user did not say.

    Raises:
        ClipsegError: nothing is to be found.
    """
    given = opt.given_options(ctx)
    if "dataset" in given:
        return opt.config_from(EvalConfig, ctx.params), ""
    from pathlib import Path

    from clipseg_cli.pipelines.runs import config_of_labels, config_of_run, newest_run

    fields = {key: value for key, value in given.items() if key in EvalConfig.__dataclass_fields__}
    if "predictions" in given:
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

    first = evaluation.share.index == 0
    if not first:
        console = Console(quiet=True)
    console.say(dataset_line(evaluation.dataset, labels=True))
    if isinstance(evaluation, Evaluation):
        console.say(f"{_model(evaluation)} on {evaluation.device}")
    for note in evaluation.notes:
        console.say(f"Note: {note}")
    watch = Stopwatch()
    done, named = 0, set()
    try:
        with (
            console.progress("evaluating", total=evaluation.total) as advance,
            closing(iter(evaluation)) as results,
        ):
            for result in results:
                done += 1
                if result.error is not None and result.image not in named:
                    named.add(result.image)  # it fails under every corruption
                    console.error(result.error)
                elif result.error is None:
                    console.detail(f"{result.image} {evaluation.conditions[result.condition]}")
                advance()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted after {done} of {count(evaluation.total, 'image')}") from None
    seconds = watch.seconds
    report = write_report(evaluation, seconds)
    if not first:
        return
    show_report(report, evaluation, console)
    console.say(f"{count(report.images, 'image')} in {format_seconds(seconds)}, results in {report.folder}")
    if report.failed:
        total = report.images + report.failed
        console.error(
            ClipsegError(f"{report.failed} of {count(total, 'image')} failed and are not in the scores")
        )
        raise typer.Exit(1)


def _model(evaluation: Evaluation) -> str:
    """As in "ViT-B-16 / openai, maskclip with prompt denoising 0.5"."""
    config = evaluation.config
    extra = [
        f"{name} {value:g}"
        for name, value in (
            ("prompt denoising", config.prompt_denoising),
            ("key smoothing", config.key_smoothing),
        )
        if value
    ]
    return f"{evaluation.model}, {config.method}" + (f" with {' and '.join(extra)}" if extra else "")
