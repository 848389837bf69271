"""`clipseg convert`: label maps in the formats of other tools."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console, Stopwatch, count
from clipseg_cli.config import ConvertConfig
from clipseg_cli.errors import ClipsegError, UsageError
from clipseg_cli.utils.text import format_seconds

EXAMPLES = """
[bold]Examples[/bold]
  clipseg convert clipseg-out --formats coco
  clipseg convert runs/pseudolabel/NAME --formats yolo-seg --out dataset --set yolo-seg.images=true
  clipseg convert masks/ --classes "sky,cat,dog" --images photos/ --formats labelme,cvat --out hand-over
"""

LabelsArg = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FOLDER",
        help="A run of pseudolabel, a folder of segment, or any folder of label PNGs.",
        show_default=False,
    ),
]


@opt.takes(ConvertConfig)
def convert(
    ctx: typer.Context,
    labels: LabelsArg,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Write the label maps in RUN or FOLDER in the formats of other tools.

    Nothing is labelled anew, and no model is loaded. What a format cannot hold is counted and said.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    if not ctx.params["formats"].strip():
        raise UsageError("Missing option '--formats' / '-f'.", hint="clipseg models --formats lists all")
    config = opt.config_from(ConvertConfig, ctx.params)
    from clipseg_cli.commands.convert import prepare_conversion  # numpy and OpenCV load here, not for --help

    run = prepare_conversion(config)
    for note in run.labels.notes:
        console.say(f"Note: {note}")
    watch = Stopwatch()
    failed: dict[str, str] = {}
    written: dict[str, int] = {}
    try:
        with console.progress("converting", total=run.total) as advance, closing(iter(run)) as results:
            for result in results:
                if result.error is not None:
                    failed[result.name] = result.error.message
                    console.error(result.error)
                for format_, paths in result.written.items():
                    written[format_] = written.get(format_, 0) + len(paths)
                    for path in paths:
                        console.detail(f"wrote {path}")
                advance()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted after {len(run.finished)} of {count(run.total, 'image')}; "
            f"files already written to {run.out} are kept"
        ) from None
    rows = _rows(written, run.together)
    if as_json:
        console.document(
            {
                "out": str(run.out),
                "images": run.total - len(failed),
                "formats": rows,
                "notes": list(run.labels.notes),
                "failures": failed,
                "failed": len(failed),
            }
        )
    console.table(
        "",
        ("format", "files", ""),
        [(r["format"], f"{r['files']:,}", ", ".join(r["together"])) for r in rows],
    )
    done = run.total - len(failed)
    if done:
        console.say(f"{count(done, 'image')} in {format_seconds(watch.seconds)}, results in {run.out}")
    if failed:
        console.error(ClipsegError(f"{len(failed)} of {count(run.total, 'image')} failed"))
        raise typer.Exit(1)


def _rows(written: dict[str, int], together: dict[str, Any]) -> list[dict[str, Any]]:
    """How many files of each format there are, and which of them are about all images."""
    from clipseg_cli.outputs import shown_name

    return [
        {
            "format": shown_name(name),
            "files": written.get(name, 0) + len(paths),
            "together": [path.name for path in paths],
        }
        for name, paths in together.items()
    ]


COMMAND = opt.Command("convert", convert, EXAMPLES, order=70)
