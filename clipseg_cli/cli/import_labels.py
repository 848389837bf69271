"""`clipseg import`: parse, call, show."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console, count
from clipseg_cli.cli.renewed import Renewed, renew
from clipseg_cli.config import ImportConfig
from clipseg_cli.errors import UsageError

EXAMPLES = """
[bold]Examples[/bold]
  clipseg import runs/pseudolabel/NAME labelme/ --by anna
  clipseg import clipseg-out project-1.json --format label-studio
  clipseg import clipseg-out marks.json --hold-out
  clipseg import clipseg-out --undo
"""

RunArg = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run of pseudolabel, or a folder of segment.",
        show_default=False,
    ),
]
FilesArg = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILES",
        help="Corrections in any format that clipseg writes, marks of a review page, or folders of them.",
        show_default=False,
    ),
]


@opt.takes(ImportConfig)
def import_labels(
    ctx: typer.Context,
    run: RunArg,
    files: FilesArg = None,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Take corrections of the labels in RUN from FILES.

    Everything is checked before anything changes, and nothing changes if anything is wrong. Labels that a human has
    corrected or checked are marked in human.jsonl; segment and pseudolabel never write over them, train does not let
    the student overrule them, and eval RUN tells how good the machine's labels were there.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    config = opt.config_from(ImportConfig, ctx.params | {"files": tuple(files or ())})
    if not config.run.strip():
        raise UsageError("RUN is empty", hint="name a run of pseudolabel, or a folder of segment")
    from clipseg_cli.commands.import_labels import open_import, summary_of, undo_import

    if config.undo:
        facts, images = undo_import(config)
        renewed = renew(Path(config.run), console, len(images))
        if as_json:
            console.document({"run": config.run, "undone": facts, "labels": images, **_beside(renewed)})
        console.say(
            f"took back the import by {facts['by']} of {facts['when']}: "
            f"{count(len(images), 'label')} as before it"
        )
        _end(renewed)
        return
    done: list[Any] = []
    with open_import(config) as work:
        with (
            console.progress("reading", total=len(work.labels.files)) as advance,
            closing(iter(work)) as results,
        ):
            for result in results:
                done.append(result)
                console.detail(f"{result.image}: {result.outcome}, {result.changed:,} pixels changed")
                advance()
        for problem in work.problems:
            console.error(problem)
        work.finish()
    renewed = renew(Path(config.run), console, sum(result.changed > 0 for result in done))
    taken = sum(result.outcome in ("corrected", "checked") for result in done)
    if as_json:
        console.document(
            {
                "run": config.run,
                "by": work.by,
                "imported": taken,
                "held_out": work.held_out,
                "images": [
                    {
                        "image": result.image,
                        "outcome": result.outcome,
                        "changed": result.changed,
                        "file": result.source,
                        "format": result.format,
                    }
                    for result in done
                ],
                **_beside(renewed),
            }
        )
    rows = [(r.image, r.outcome, f"{r.changed:,}") for r in done if r.outcome != "unchanged"]
    if rows:
        console.table("", ("image", "", "pixels changed"), rows, left=(0, 1))
    left = sum(result.outcome == "left out" for result in done)
    if left:
        console.say(
            f"Note: {count(left, 'image')} without a region in the file left as before; --empty makes it background"
        )
    since = sum(result.outcome == "changed since" for result in done)
    if since:
        console.say(
            f"Note: {count(since, 'image')} not marked: the labels are others than those that were looked at; "
            "look again with clipseg review"
        )
    same = sum(result.outcome == "unchanged" for result in done)
    if same:
        console.say(
            f"Note: {count(same, 'image')} as before, and not marked; --checked marks what was looked at"
        )
    held = f", {work.held_out} held out of training" if work.held_out else ""
    console.say(f"{summary_of(done)}, by {work.by}{held}")
    _end(renewed)


def _beside(renewed: Renewed) -> dict[str, Any]:
    """What the document says of files that were made of the labels before."""
    return {"made_anew": renewed.written, "out_of_date": renewed.outdated}


def _end(renewed: Renewed) -> None:
    """Raise where label maps could not be read for these files: the import holds all the same."""
    if renewed.failed:
        raise typer.Exit(1)


COMMAND = opt.Command("import", import_labels, EXAMPLES, order=73)
