"""`clipseg index`: parse, call, show."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console, Stopwatch, count, dataset_line
from clipseg_cli.cli.qualities import say_needs
from clipseg_cli.config import IndexConfig
from clipseg_cli.errors import ClipsegError, UsageError
from clipseg_cli.utils.text import format_seconds

if TYPE_CHECKING:
    from clipseg_cli.commands.index import IndexRun
    from clipseg_cli.commands.index_regions import RegionIndexRun

EXAMPLES = """
[bold]Examples[/bold]
  clipseg index photos/ --out bank
  clipseg index photos/ --regions eomt --guide dino-b8 --method corrclip --out bank
  clipseg index --labels runs/pseudolabel/NAME --out bank
  clipseg index --labels voc/ --out bank
  clipseg index photos/ --labels corrected/ --classes "cat,dog" --out bank
  clipseg index photos/ --suggest 10 --model emoji
"""
FolderArg = Annotated[
    str,
    typer.Argument(
        metavar="[FOLDER]",
        help="The images; a data set too, with --split. With --labels only where that names a folder of label PNGs.",
        show_default=False,
    ),
]


@opt.takes(IndexConfig, without=("student", "unseen", "memory", "region_vote", "pamr"))
def index(
    ctx: typer.Context,
    dataset: FolderArg = "",
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Remember images, for --memory BANK: what their regions look like and mean, or, with --labels, what they show.

    Writes a bank: bank.json with everything it was made with, and what it knows of the images. Interrupted at any
    moment, the same command goes on where it was; once there are more images or corrected labels, it adds them.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    config = opt.config_from(IndexConfig, ctx.params)
    given = opt.given_options(ctx)
    if config.suggest is not None:
        _suggest(config, console)
        return
    labels = bool(config.labels.strip())
    _check(config, labels=labels)
    say_needs(config, console)
    with console.waiting("loading the model"):
        # torch loads here, not for --help
        if labels:
            from clipseg_cli.commands.index import prepare_index

            run: IndexRun | RegionIndexRun = prepare_index(config, given)
        else:
            from clipseg_cli.commands.index_regions import prepare_region_index

            run = prepare_region_index(config)
    _remember(run, console)


def _check(config: IndexConfig, *, labels: bool) -> None:
    """Refuse what says nothing of what to remember, or of what it is about.

    Raises:
        UsageError: it does.
    """
    if not labels and not config.dataset.strip():
        raise UsageError(
            "nothing says what to remember",
            hint="name a folder of images, or --labels: a run with corrected labels, or a data set",
        )
    if labels and config.regions:
        raise UsageError(
            "--regions is about a bank of unlabelled images; labels say themselves where things are",
            hint="leave out --regions or --labels",
        )


def _remember(run: IndexRun | RegionIndexRun, console: Console) -> None:
    """Go through all images, name each failed one at once, and say what the bank knows.

    Raises:
        KeyboardInterrupt: with a sentence about how to go on.
        typer.Exit: with code 1 where images failed.
    """
    dataset = getattr(run, "dataset", None)
    console.say(count(run.total, "image") if dataset is None else dataset_line(dataset))
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
                "kind": run.facts.kind,
                "fingerprint": run.facts.fingerprint,
                "pictures": list(run.facts.images),
                "read": fresh,
                "failed": failed,
                **run.identity,
            }
        )
    known = len(run.facts.images)
    before = f", {known - fresh} of them before" if known > fresh else ""
    new = getattr(run, "regions", 0)
    regions = f" with {count(new, 'region')} read now" if new else ""
    console.say(f"{count(known, 'image')} in {run.out}{before}{regions}, {format_seconds(watch.seconds)}")
    if gone := len(run.before - run.facts.images.keys()):
        were = "is" if gone == 1 else "are"
        console.say(f"Note: {count(gone, 'image')} that it knew {were} no longer among them, and forgotten")
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
        from clipseg_cli.commands.suggest import suggest_images

        found = suggest_images(config)
    for error in found.failures:
        console.error(error)
    console.say(f"{count(found.total, 'image')}, {found.known} of them in {config.out}")
    if console.as_json:
        console.document({"pictures": list(found.names), "known": found.known, "total": found.total})
    else:
        for name in found.names:
            typer.echo(name)


COMMAND = opt.Command("index", index, EXAMPLES, order=30)
