"""`clipseg review`: which label maps to look at first, and a page to look at them."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console, Stopwatch, count
from clipseg_cli.config import ReviewConfig
from clipseg_cli.errors import ClipsegError
from clipseg_cli.utils.text import format_seconds, percent

EXAMPLES = """
[bold]Examples[/bold]
  clipseg review clipseg-out --images photos/
  clipseg review runs/pseudolabel/NAME
  clipseg review clipseg-out --images photos/ --against other-out
  clipseg review masks/ --classes "sky,cat,dog" --images photos/ --against clipseg-out --out review
"""
SHOWN = 10
"""Images that are named on the terminal."""

RunArg = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run of pseudolabel, a folder of segment, or any folder of label PNGs.",
        show_default=False,
    ),
]


@opt.takes(ReviewConfig)
def review(
    ctx: typer.Context,
    labels: RunArg,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Order the label maps of RUN by trust, the least trusted first, and make a page to look at them.

    Trust is the mean confidence of the foreground, or with --against how far a second run agrees. It is a rank, not a
    probability. Writes review.html (one file, opens from the disk), review.csv, review_regions.csv and review.json. In
    the page g, f and s mark an image as good, to fix or to skip, and a button saves the marks.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    config = opt.config_from(ReviewConfig, ctx.params)
    from clipseg_cli.commands.review import prepare_review  # numpy and OpenCV load here, not for --help

    run = prepare_review(config)
    for note in run.notes:
        console.say(f"Note: {note}")
    watch = Stopwatch()
    trusts: list[tuple[float, str]] = []
    unknown = 0
    with console.progress("looking", total=run.total) as advance, closing(iter(run)) as results:
        for result in results:
            if result.error is not None:
                console.error(result.error)
            elif result.trust is None:
                unknown += 1
            else:
                trusts.append((result.trust, result.name))
            advance()
    if unknown:
        console.say(f"Note: nothing is known of {count(unknown, 'image')}, which come last")
    trusts.sort()
    if as_json:
        console.document(_document(run, trusts[:SHOWN], unknown))
    console.table(
        f"Least trusted, by {run.order}", ("image", "trust"), [(n, percent(t)) for t, n in trusts[:SHOWN]]
    )
    done = run.total - len(run.failures)
    if done:
        console.say(f"{count(done, 'image')} in {format_seconds(watch.seconds)}; open {run.written[-1]}")
    if run.failures:
        console.error(ClipsegError(f"{len(run.failures)} of {count(run.total, 'image')} failed"))
        raise typer.Exit(1)


def _document(run: Any, least: list[tuple[float, str]], unknown: int) -> dict[str, Any]:
    return {
        "out": str(run.out),
        "order": run.order,
        "images": run.total - len(run.failures),
        "unknown": unknown,
        "written": [path.name for path in run.written],
        "least_trusted": [{"image": name, "trust": round(trust, 4)} for trust, name in least],
        "notes": list(run.notes),
        "failures": run.failures,
        "failed": len(run.failures),
    }


COMMAND = opt.Command("review", review, EXAMPLES, order=72)
