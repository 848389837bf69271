"""`clipseg train`: parse, call, show."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console, Stopwatch, count, dataset_line
from clipseg_cli.cli.qualities import say_needs
from clipseg_cli.config import TrainConfig
from clipseg_cli.errors import ClipsegError
from clipseg_cli.utils.text import format_seconds, percent

if TYPE_CHECKING:
    from clipseg_cli.training.log import Step, Validation
    from clipseg_cli.training.loop import TrainingRun

EXAMPLES = """
[bold]Examples[/bold]
  clipseg train
  clipseg train --preset quick --init none
  clipseg train --labels runs/pseudolabel/VOC2012-voc21-train-ViT-B-16
  clipseg train --teacher --dataset voc/ --benchmark voc20 --prompt-denoising 0.5 --key-smoothing 1.0
  clipseg train --teacher --dataset voc/ --setting zero-shot --unseen preset --model RN50
  torchrun --nproc-per-node 4 -m clipseg_cli train --labels RUN
"""
LINES = 10
"""Lines about the loss in a run whose stderr is no terminal."""


@opt.takes(TrainConfig, without=("student", "background_threshold", "window", "stride"))
def train(
    ctx: typer.Context,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Distil free labels into a fast segmentation network of your own (MaskCLIP+).

    Without --labels or --dataset it learns from the newest run of clipseg pseudolabel. The labels guide at first,
    then the student labels for itself. Writes a run folder: checkpoints, log.csv, TensorBoard,
    curves.png and predictions.png. The result labels images with clipseg segment --student RUN.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    config = opt.config_from(TrainConfig, ctx.params)
    with ExitStack() as stack:
        if config.teacher:
            say_needs(config, console)
        with console.waiting("loading"):
            from clipseg_cli.commands.train import choose_labels, open_training  # torch loads here

            config, why = choose_labels(config)
            run = stack.enter_context(open_training(config))
        if run.share.index > 0:
            console = Console(quiet=True)  # torchrun shows all ranks on one terminal
        if why:
            console.say(why)
        _introduce(run, console)
        watch, before = Stopwatch(), run.state.iteration
        _train(run, console)
        if run.share.index == 0:
            _show(run, console, watch.seconds, run.state.iteration - before)
            if run.failures:
                images = count(len(run.failures), "image")
                console.error(ClipsegError(f"{images} could not be used; all others were"))
                raise typer.Exit(1)


def _introduce(run: TrainingRun, console: Console) -> None:
    """Say what is learnt, by what, and how."""
    n, task = run.hparams, run.task
    console.say(dataset_line(task.dataset))
    unseen = [task.dataset.classes.names[i] for i in task.unseen]
    without = f", without ground truth of {', '.join(unseen)}" if unseen else ""
    console.say(f"{run.config.setting}{without}: {_stages(run)}")
    heads = {"deeplabv2": "DeepLabv2", "deeplabv3plus": "DeepLabv3+"}
    console.say(
        f"{heads[n.head]} on {n.backbone}, {n.iterations:,} iterations of {n.batch_size} crops of {n.crop} pixels, "
        f"learning rate {n.lr:g} ({n.preset}), on {run.device_name}"
    )
    for note in run.notes:
        console.say(f"Note: {note}")


def _stages(run: TrainingRun) -> str:
    n, config = run.hparams, run.config
    if config.setting == "supervised":
        return "learning from the ground truth"
    if config.targets == "features":
        return "learning the teacher's features"
    source = f"{config.model}, crop by crop," if config.teacher else f"the labels of {run.task.run}"
    until = f"guided by {source} for {count(n.guided, 'iteration')}" if n.guided else "guided by nobody"
    if n.self_training_from >= n.iterations:
        return until
    return (
        until
        + (", also" if n.self_training_from < n.guided else ", then")
        + f" self-training from {n.self_training_from}"
    )


def _train(run: TrainingRun, console: Console) -> None:
    """Go through the iterations, and say what each validation found.

    Raises:
        KeyboardInterrupt: with a sentence about how to go on.
    """
    from clipseg_cli.training.log import Validation

    total, named = run.hparams.iterations, set[str]()

    def name_failures() -> None:
        for name in run.failures.keys() - named:
            named.add(name)
            console.say(f"Note: {name} is left out: {run.failures[name]}")

    every = max(1, total // LINES)
    try:
        with (
            console.countdown("training", total, run.state.iteration) as advance,
            closing(iter(run)) as events,
        ):
            for event in events:
                name_failures()
                if isinstance(event, Validation):
                    console.say(_scored(event))
                    continue
                advance(event.iteration, _progress(event))
                if not console.draws and event.iteration % every == 0:
                    console.say(
                        f"iteration {event.iteration:,} of {total:,}: {_progress(event)}, {event.stage}"
                    )
    except KeyboardInterrupt:
        from clipseg_cli.inference.students import LAST, latest

        kept = latest(run.folder, LAST)
        where = f"--resume goes on from {kept}" if kept else "--resume starts it again: no checkpoint yet"
        raise KeyboardInterrupt(
            f"interrupted after {run.state.iteration} of {count(total, 'iteration')}; {where}"
        ) from None
    name_failures()  # those of the last validation, and of other processes


def _progress(step: Step) -> str:
    distance = "" if step.distill is None else f", features {step.distill:.3f}"
    return f"loss {step.loss:.3f}{distance}, {step.images_per_second:.3g} images/s"


def _scored(validation: Validation) -> str:
    return (
        f"iteration {validation.iteration:,}: mIoU {percent(validation.miou)}, pixel accuracy "
        f"{percent(validation.pixel_accuracy)} on {count(validation.images, 'image')}"
    )


def _show(run: TrainingRun, console: Console, seconds: float, iterations: int) -> None:
    """What came out, after so many iterations in this process, and how it is used."""
    if not run.finished:
        return
    if console.as_json:
        console.document(_document(run, seconds))
    if run.state.padded:
        crops = count(run.state.padded, "crop")
        console.say(f"Note: {crops} of {run.hparams.crop} pixels were larger than the image, and padded")
    if run.state.best is not None and run.state.best_iteration != run.hparams.iterations:
        console.say(
            f"Best on the way: mIoU {percent(run.state.best)} after "
            f"{count(run.state.best_iteration, 'iteration')} ({run.folder}/best)"
        )
    took = (
        f"{count(iterations, 'iteration')} in {format_seconds(seconds)}, results" if iterations else "Results"
    )
    console.say(f"{took} in {run.folder}")
    console.say(f"Use it: clipseg segment IMAGES --student {run.folder}")


def _document(run: TrainingRun, seconds: float) -> dict[str, Any]:
    from clipseg_cli.outputs import json_safe

    data: dict[str, Any] = json_safe(
        {
            "folder": run.folder,
            "checkpoint": run.checkpoint,
            "setting": run.config.setting,
            "numbers": run.hparams,
            "validation": run.last,
            "best_miou": run.state.best,
            "best_iteration": run.state.best_iteration,
            "failures": run.failures,
            "seconds": seconds,
        }
    )
    return data


COMMAND = opt.Command("train", train, EXAMPLES, order=40)
