"""`clipseg index`: parse, call, show."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console, Stopwatch, count, dataset_line, format_seconds
from clipseg_cli.config import IndexConfig
from clipseg_cli.errors import ClipsegError, UsageError

if TYPE_CHECKING:
    from clipseg_cli.commands.index import IndexRun

EXAMPLES = """
[bold]Examples[/bold]
  clipseg index --labels runs/pseudolabel/NAME --out bank
  clipseg index --labels voc/ --out bank
  clipseg index photos/ --labels corrected/ --classes "cat,dog" --out bank
  clipseg index photos/ --suggest 10 --model emoji
"""
FolderArg = Annotated[
    str,
    typer.Argument(
        metavar="[FOLDER]",
        help="The images, where --labels names a folder of label PNGs, or with --suggest.",
        show_default=False,
    ),
]


@opt.takes(IndexConfig, without=("student", "unseen", "memory", "regions", "region_vote", "pamr"))
def index(
    ctx: typer.Context,
    dataset: FolderArg = "",
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Remember what labelled images show, for --memory BANK.

    Writes a bank: bank.json with everything it was made with, and a file for each image. Interrupted at any moment,
    the same command goes on where it was; once more labels are corrected, it adds them.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    config = opt.config_from(IndexConfig, ctx.params)
    given = opt.given_options(ctx)
    if config.suggest is not None:
        _suggest(config, console)
        return
    if not config.labels.strip():
        raise UsageError(
            "--labels is missing: nothing says what the images show",
            hint="name a run with corrected labels, or a data set: --labels runs/pseudolabel/NAME",
        )
    with console.waiting("loading the model"):
        from clipseg_cli.commands.index import prepare_index  # torch loads here, not for --help

        run = prepare_index(config, given)
    _remember(run, console)


def _remember(run: IndexRun, console: Console) -> None:
    """Go through all images, name each failed one at once, and say what the bank knows.

    Raises:
        KeyboardInterrupt: with a sentence about how to go on.
        typer.Exit: with code 1 where images failed.
    """
    console.say(dataset_line(run.labelled.dataset))
    console.say(f"{run.model} on {run.device}")
    for note in run.notes:
        console.say(f"Note: {note}")
    watch, done, fresh, failed = Stopwatch(), 0, 0, 0
    try:
        with console.progress("indexing", total=run.total) as advance, closing(iter(run)) as images:
            for image in images:
                if image.error is not None:
                    failed += 1
                    console.error(image.error)
                else:
                    done, fresh = done + 1, fresh + image.fresh
                    console.detail(f"{image.image}: {'read' if image.fresh else 'there already'}")
                advance()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted after {done} of {count(run.total, 'image')}; the same command goes on with the rest"
        ) from None
    assert run.facts is not None
    if console.as_json:
        console.document(
            {
                "bank": str(run.out),
                "fingerprint": run.facts.fingerprint,
                "pictures": list(run.facts.pictures),
                "classes": list(run.classes.names),
                "read": fresh,
                "failed": failed,
                **run.identity,
            }
        )
    before = f", {done - fresh} of them before" if done > fresh else ""
    console.say(f"{count(done, 'image')} in {run.out}{before}, {format_seconds(watch.seconds)}")
    console.say(f"Label with it: --memory {run.out}")
    if failed:
        console.error(ClipsegError(f"{failed} of {count(run.total, 'image')} failed"))
        raise typer.Exit(1)


def _suggest(config: IndexConfig, console: Console) -> None:
    """Names of images, one a line on standard output.

    Raises:
        UsageError: no folder.
    """
    if not config.dataset.strip():
        raise UsageError(
            "--suggest chooses among the images of FOLDER", hint="clipseg index photos/ --suggest 10"
        )
    with console.waiting("loading the model"):
        from clipseg_cli.commands.suggest import suggest_pictures

        found = suggest_pictures(config)
    for error in found.failures:
        console.error(error)
    console.say(f"{count(found.total, 'image')}, {found.known} of them in {config.out}")
    if console.as_json:
        console.document({"pictures": list(found.names), "known": found.known, "total": found.total})
    else:
        for name in found.names:
            typer.echo(name)


COMMAND = opt.Command("index", index, EXAMPLES, order=30)
