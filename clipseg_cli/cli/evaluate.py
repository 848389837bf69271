"""`clipseg eval`: parse, call, show."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.checked import evaluate_checked
from clipseg_cli.cli.comparison import compare
from clipseg_cli.cli.console import Console, Stopwatch, count, dataset_line
from clipseg_cli.cli.qualities import say_needs
from clipseg_cli.cli.results import Scored, show_results
from clipseg_cli.cli.scores import show_protocol as print_protocol
from clipseg_cli.config import OF_A_CLIP, EvalConfig
from clipseg_cli.config.options import DATA, METHOD
from clipseg_cli.errors import ClipsegError, UsageError
from clipseg_cli.utils.text import format_seconds

if TYPE_CHECKING:
    from clipseg_cli.evaluation.model_scoring import ModelScoring
    from clipseg_cli.evaluation.predictions import PredictionScoring

EXAMPLES = """
[bold]Examples[/bold]
  clipseg eval
  clipseg eval runs/pseudolabel/NAME
  clipseg eval --dataset voc/ --benchmark voc20 --protocol maskclip
  clipseg eval --dataset voc/ --prompt-denoising 0.5 --key-smoothing 1.0
  clipseg eval --dataset voc/ --methods all
  clipseg eval --dataset voc/ --corrupt all --severity 1..5
  clipseg eval --dataset voc/ --predictions labels/ --unseen sofa,train
  clipseg eval --student runs/train/VOC2012-voc21-annotation-free-resnet101c
  clipseg eval --protocol sclip --benchmark cityscapes --show-protocol
"""

CheckedArg = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run with labels that a human has corrected or checked (clipseg import): how good the machine's "
        "were there.",
        show_default=False,
    ),
]
RunOpt = Annotated[
    str,
    opt.ask(
        "A pseudo-label run: its model, method and data set. Left out, with --dataset too: the newest.",
        DATA,
        "--run",
        metavar="DIR",
    ),
]
AloneOpt = Annotated[bool, opt.ask("Score a student without the teacher beside it.", DATA, "--alone")]
MethodsOpt = Annotated[
    str,
    opt.ask(
        "Compare several methods on the same images: maskclip,sclip,naclip:kk, or all.",
        METHOD,
        metavar="LIST",
    ),
]
ModelsOpt = Annotated[
    str,
    opt.ask(
        "With --methods, compare them on several models: emoji,ViT-B-16, or ViT-B-16=TAG.",
        METHOD,
        metavar="LIST",
    ),
]
ShowProtocolOpt = Annotated[
    bool,
    opt.ask(
        "Print every setting of the protocol on the benchmark, with its fingerprint, and do nothing else.",
        METHOD,
        "--show-protocol",
    ),
]

TEACHER = "teacher"
"""Folder of the teacher's results in that of its student's."""


@opt.takes(EvalConfig)
def evaluate(
    ctx: typer.Context,
    checked: CheckedArg = "",
    run: RunOpt = "",
    alone: AloneOpt = False,
    methods: MethodsOpt = "",
    models: ModelsOpt = "",
    show_protocol: ShowProtocolOpt = False,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Score label maps against ground truth: those of a model, or the images that any tool has made.

    Prints the IoU of each class, mIoU and accuracies, and what was published for the same benchmark; writes
    results.json, results.csv and confusion.png. Without a data set it takes the newest student beside its teacher, or
    else the newest run of clipseg pseudolabel.

    With RUN it scores the labels that the machine made, or those of --predictions, against what humans say: mIoU and
    pixel accuracy with an interval, and no file is written.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    if "checked" in opt.given_options(ctx):
        evaluate_checked(opt.given_options(ctx), console)
        return
    _check(opt.given_options(ctx))
    if show_protocol:
        config = _config(ctx, run)[0] if run else opt.config_from(EvalConfig, ctx.params)
        print_protocol(config, console)
        return
    with console.waiting("loading"):
        config, why = _config(ctx, run)
        if alone and not config.student:
            raise UsageError(
                "--alone is about a student, and none is scored",
                hint="name one with --student, or leave out --alone",
            )
        if why and _first():
            console.say(why)
    if not config.predictions and _first():
        say_needs(config, console)
    if methods or models:
        compare(config, methods or config.method_name, models, console)
        return
    scored = [_evaluate(config, console)]
    if config.student and not alone:
        from clipseg_cli.inference.students import evaluation_of_teacher

        teacher = evaluation_of_teacher(config)
        if teacher is not None:
            inside = dataclasses.replace(teacher, out=scored[0].report.folder, name=TEACHER)
            scored.append(_evaluate(inside, console))
    show_results(scored, console)
    if any(one.report.failed for one in scored):
        raise typer.Exit(1)


def _evaluate(config: EvalConfig, console: Console) -> Scored:
    """Open and run one evaluation."""
    with ExitStack() as stack:
        with console.waiting("loading"):
            if config.predictions:
                from clipseg_cli.evaluation.predictions import open_predictions

                evaluation: ModelScoring | PredictionScoring = stack.enter_context(open_predictions(config))
            else:
                from clipseg_cli.commands.evaluate import open_evaluation

                evaluation = stack.enter_context(open_evaluation(config))
        return _score(evaluation, console)


def _check(given: dict[str, Any]) -> None:
    """Refuse options that exclude each other, or do nothing.

    Raises:
        UsageError: there are such.
    """
    for name in ("dataset", "run", "predictions"):
        if not str(given.get(name, "x")).strip():  # as `--dataset "$UNSET"` gives it
            raise UsageError(f"--{name} is empty", hint=f"name a folder, or leave out --{name}")
    for name in ("methods", "models"):
        if not given.get(name, "x").strip(" ,"):
            raise UsageError(f"--{name} names none", hint="as in --methods maskclip,sclip, or --methods all")
    if "run" in given and "dataset" in given:
        raise UsageError("--run brings its own data set", hint="leave out --run or --dataset")
    if "run" in given and "predictions" in given:
        raise UsageError(
            "--run asks for the run's model, --predictions for labels that are there",
            hint="leave out one of them; --predictions RUN scores the labels of a run",
        )
    for one, several in (
        ("method", "methods"),
        ("quality", "methods"),
        ("model", "models"),
        ("student", "methods"),
        ("corrupt", "methods"),
    ):
        if one in given and several in given:
            raise UsageError(f"--{one} does not go with --{several}", hint="leave out one of them")
    if "methods" in given and "predictions" in given:
        raise UsageError(
            "--methods compares models, --predictions scores files", hint="leave out one of them"
        )
    opt.check_student(given)
    for name in ("run", "predictions"):
        if name in given and "student" in given:
            raise UsageError(f"--{name} does not go with --student", hint="leave out one of them")
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
    fields = {key: value for key, value in given.items() if key in EvalConfig.__dataclass_fields__}
    if "student" in given:
        return _of_student(given["student"], fields), ""
    if "dataset" in given:
        return opt.config_from(EvalConfig, ctx.params), ""
    from pathlib import Path

    from clipseg_cli.runs.find import config_of_labels, config_of_run, has_runs, newest_run

    if "predictions" in given:
        return config_of_labels(given["predictions"], fields), ""
    if run:
        return config_of_run(Path(run), fields), ""
    if has_runs("train") and not any(name in given for name in OF_A_CLIP):
        folder, why = newest_run(kind="train")
        config = _of_student(str(folder), fields)
        return config, f"Evaluating the student in {folder}, {why}, on {config.dataset}"
    folder, why = newest_run()
    config = config_of_run(folder, fields)
    return config, f"Evaluating {config.model} as in {folder}, {why}, on {config.dataset}"


def _of_student(student: str, fields: dict[str, object]) -> EvalConfig:
    from clipseg_cli.inference.students import evaluation_of_student

    return evaluation_of_student(student, {k: v for k, v in fields.items() if k != "student"})


def _score(evaluation: ModelScoring | PredictionScoring, console: Console) -> Scored:
    """Go through all images, name each that failed, and write the report.

    Raises:
        KeyboardInterrupt: with a sentence.
    """
    from clipseg_cli.evaluation.model_scoring import ModelScoring
    from clipseg_cli.evaluation.report import write_report

    first = evaluation.share.index == 0
    if not first:
        console = Console(quiet=True)
    console.say(dataset_line(evaluation.dataset, labels=True))
    if isinstance(evaluation, ModelScoring):
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
    if first and report.images:
        console.say(
            f"{count(report.images, 'image')} in {format_seconds(seconds)}, results in {report.folder}"
        )
    if first and report.failed:
        total = count(report.images + report.failed, "image")
        what = "are not in the scores" if report.images else "nothing was written"
        console.error(ClipsegError(f"{report.failed} of {total} failed and {what}"))
    return Scored(evaluation, report, seconds, first)


def _model(evaluation: ModelScoring) -> str:
    """As in "ViT-B-16 / openai, maskclip with prompt denoising 0.5"."""
    config = evaluation.config
    if config.student:
        return evaluation.model
    extra = [f"--quality {config.quality}"] if config.quality else []
    extra += [
        name.replace("_", " ") + ("" if value is True else f" {value}")
        for name, value in config.refinements(evaluation.predictor.classes.background is not None).items()
    ]
    return f"{evaluation.model}, {config.method_name}" + (f" with {' and '.join(extra)}" if extra else "")


COMMAND = opt.Command("eval", evaluate, EXAMPLES, order=50)
