"""`clipseg pseudolabel`: parse, call, show."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console, Stopwatch, count, dataset_line
from clipseg_cli.cli.qualities import say_needs
from clipseg_cli.cli.renewed import renew, show_conversion
from clipseg_cli.cli.sharded import label_shards
from clipseg_cli.config import PseudolabelConfig
from clipseg_cli.errors import ClipsegError
from clipseg_cli.utils.text import format_seconds, listed, percent

if TYPE_CHECKING:
    from clipseg_cli.commands.pseudolabel import PseudolabelRun
    from clipseg_cli.commands.pseudolabel_shards import ShardedRun
    from clipseg_cli.runs.summary import Summary

EXAMPLES = """
[bold]Examples[/bold]
  clipseg pseudolabel voc/
  clipseg pseudolabel voc/ --prompt-denoising 0.5 --min-confidence 0.3
  clipseg pseudolabel voc/ --benchmark voc20 --keep-labels seen --unseen preset
  clipseg pseudolabel photos/ --classes "cat,dog,couch|sofa"
  torchrun --nproc-per-node 4 -m clipseg_cli pseudolabel voc/
  clipseg pseudolabel "s3://bucket/train-{000..127}.tar" --classes "cat,dog" --engine ray
"""
DatasetArg = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="Root of VOC, PASCAL Context, COCO-Stuff, ADE20K, Cityscapes, or a folder of images; a text file that "
        "lists images; tars of WebDataset (train-{000..127}.tar). Also as an address: s3://bucket/photos.",
        show_default=False,
    ),
]
BAR = 24  # characters of the longest bar of the histogram
NAMED = 12  # of the classes that occur nowhere


@opt.takes(PseudolabelConfig, without=("student",))
def pseudolabel(
    ctx: typer.Context,
    dataset: DatasetArg,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Label every image of DATASET without annotation, for a network to learn from.

    Writes a run folder: labels/*.png (VOC palette, 255 = ignore), manifest.json with everything it was made with,
    images.jsonl, and summary.png to look at. Interrupted at any moment, the same command goes on where it was.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    config = opt.config_from(PseudolabelConfig, ctx.params)
    with ExitStack() as stack:
        say_needs(config, console)
        with console.waiting("loading the model"):
            # torch loads here, not for --help
            from clipseg_cli.commands.pseudolabel import open_run
            from clipseg_cli.commands.pseudolabel_shards import is_sharded, open_sharded_run

            if not is_sharded(config):
                run = stack.enter_context(open_run(config))
            else:
                sharded = stack.enter_context(open_sharded_run(config))
        if is_sharded(config):
            _label_shards(sharded, console)
        else:
            _label(run, console)


def _label(run: PseudolabelRun, console: Console) -> None:
    """Do this process's share, name each image that failed, and show the run once it is complete.

    Raises:
        KeyboardInterrupt: with a sentence about how to go on.
        typer.Exit: with code 1 where images failed.
    """
    if run.share.launched and run.share.index > 0:
        console = Console(quiet=True)  # torchrun shows all ranks on one terminal
    console.say(dataset_line(run.dataset))
    console.say(f"{run.model} on {run.device}")
    for note in run.notes:
        console.say(f"Note: {note}")
    if run.share.count > 1:
        console.say(f"Part {run.share}: {count(run.total, 'image')}")
    if run.before:
        console.say(f"{count(run.before, 'image')} {'was' if run.before == 1 else 'were'} done before")
    watch = Stopwatch()
    try:
        with (
            console.progress("labelling", total=run.total, done=run.before) as advance,
            closing(iter(run)) as records,
        ):
            for record in records:
                if record.error:
                    console.error(ClipsegError(record.error))
                else:
                    console.detail(f"{record.image}: {record.height}x{record.width}")
                advance()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted after {run.before + run.done} of {count(run.total, 'image')}; "
            f"the same command goes on with the rest"
        ) from None
    summary = run.finish()
    if run.features is not None:
        for sentence in run.features.sentences(watch.seconds):
            console.say(sentence)
    unwritten = 0
    if summary is not None:
        _show(summary, run, console)
        unwritten = _convert(run, console)
    else:
        _show_part(run, console)
    if run.done:
        console.say(f"{count(run.done, 'image')} in {format_seconds(watch.seconds)}, results in {run.folder}")
    else:
        console.say(f"nothing was left to do, results in {run.folder}")
    failures = run.failures if summary is None else summary.failures
    # torchrun ends all ranks when one fails: only the first does, which sums up for all of them.
    if failures and not (summary is None and run.share.launched):
        total = run.total if summary is None else len(run.dataset.samples)
        have = "has" if len(failures) == 1 else "have"
        error = f"{len(failures)} of {count(total, 'image')} {have} no label"
        console.error(ClipsegError(error, hint="once they are mended, the same command labels them too"))
        raise typer.Exit(1)
    if unwritten:
        raise typer.Exit(1)


def _label_shards(run: ShardedRun, console: Console) -> None:
    """Have the shards labelled, name what failed, and show the run once it is complete.

    Raises:
        KeyboardInterrupt: with a sentence about how to go on.
        typer.Exit: with code 1 where something failed.
    """
    watch = Stopwatch()
    label_shards(run, console)
    summary = run.finish()
    failed = bool(run.failures)
    for sentence in run.doubles():
        failed = True
        console.error(ClipsegError(sentence, hint="both are labelled, each in its own tar"))
    if summary is not None:
        _show(summary, run, console)
        failed = bool(_convert(run, console)) or failed
    elif console.as_json:
        console.document({**_head(run, complete=False), "failures": run.failures})
    if run.done:
        console.say(f"{count(run.done, 'image')} in {format_seconds(watch.seconds)}, results in {run.folder}")
    elif summary is not None:
        console.say(f"nothing was left to do, results in {run.folder}")
    without = summary.failures if summary is not None else run.failures
    if without:
        have = "has" if len(without) == 1 else "have"
        what = count(len(without), "image")
        if summary is None:
            what += " or shard" if len(without) == 1 else " or shards"
        console.error(
            ClipsegError(
                f"{what} {have} no label", hint="once they are mended, the same command labels them too"
            )
        )
    if without or failed:
        raise typer.Exit(1)


def _convert(run: PseudolabelRun | ShardedRun, console: Console) -> int:
    """Write formats that were asked for, and anew what is of other labels; how many label maps could not be read."""
    conversion, failed = run.conversion(), 0
    if conversion is not None:
        for note in conversion.labels.notes:
            console.say(f"Note: {note}")
        failed = show_conversion(conversion, console)
    return failed + renew(run.folder, console).failed


def _show_part(run: PseudolabelRun, console: Console) -> None:
    """One share of a run of which others are still missing; a rank of torchrun leaves that to the first."""
    if run.share.launched:
        return
    if console.as_json:
        console.document({**_head(run, complete=False), "images": run.total, "failures": run.failures})
    console.say(f"Part {run.share} is done; the run is complete when all {run.share.count} parts are")


def _head(run: PseudolabelRun | ShardedRun, *, complete: bool) -> dict[str, Any]:
    part = str(run.share) if run.share.count > 1 else None
    return {"folder": str(run.folder), "complete": complete, "part": part, "model": run.model}


def _show(summary: Summary, run: PseudolabelRun | ShardedRun, console: Console) -> None:
    """The class histogram: how often each class was given, and how sure the model was."""
    if console.as_json:
        console.document({**_head(run, complete=True), **asdict(summary), "folder": str(summary.folder)})
        return
    most = max(summary.ignored, *(c.share for c in summary.classes)) or 1.0
    rows = [
        (
            c.name,
            percent(c.share),
            f"{c.images:,}",
            "" if c.confidence is None else f"{c.confidence:.2f}",
            "\u2588" * round(BAR * c.share / most) or "\u258f",
        )
        for c in sorted(summary.classes, key=lambda c: -c.share)
        if c.pixels
    ]
    if summary.ignored:
        rows.append(
            ("(ignored)", percent(summary.ignored), "", "", "\u2591" * round(BAR * summary.ignored / most))
        )
    if not rows:
        return
    title = f"{count(summary.images, 'image')}, share of all pixels"
    console.table(title, ("class", "share", "images", "confidence", ""), rows, left=(0, 4))
    if absent := [c.name for c in summary.classes if not c.pixels]:
        console.say(f"In no image: {listed(absent, NAMED)}")
    if summary.kept:
        console.say(f"{percent(summary.kept)} of all pixels kept their ground truth")


COMMAND = opt.Command("pseudolabel", pseudolabel, EXAMPLES, order=20)
