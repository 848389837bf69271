"""`clipseg export`: a student as one file that other programs run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console, Stopwatch
from clipseg_cli.config import ExportConfig
from clipseg_cli.errors import UsageError
from clipseg_cli.utils.text import format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipseg_cli.commands.export import Export
    from clipseg_cli.models.student.onnx import Port

EXAMPLES = """
[bold]Examples[/bold]
  clipseg export runs/train/NAME --onnx student.onnx
  clipseg export runs/train/NAME/best --onnx pets.onnx --classes "cat|kitten,dog"
"""

StudentArg = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run of clipseg train (its last checkpoint), RUN/best, or a checkpoint.",
        show_default=False,
    ),
]


@opt.takes(ExportConfig)
def export(
    ctx: typer.Context,
    student: StudentArg,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Write the student of RUN as an ONNX graph that runs without clipseg.

    Images of any size go in as RGB from 0 to 255, logits and labels come out at their size. The file is kept only
    if onnxruntime computes with it what the student computes. It needs the packages
    onnx, onnxruntime and onnxscript.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    _check(opt.given_options(ctx))
    config = opt.config_from(ExportConfig, ctx.params)
    watch = Stopwatch()
    with console.waiting("exporting"):
        from clipseg_cli.commands.export import export_student  # torch loads here, not for --help

        made = export_student(config)
    for note in made.notes:
        console.say(f"Note: {note}")
    if as_json:
        console.document(_document(made))
    _show(made, console)
    console.say(f"{made.model.name} / {made.model.pretrained} exported in {format_seconds(watch.seconds)}")


def _check(given: Mapping[str, Any]) -> None:
    """Refuse options that hold nothing or do nothing.

    Raises:
        UsageError: there are such.
    """
    own = "the words of its training are taken without --classes"
    if not given.get("classes", "x").strip():  # as `--classes "$UNSET"` gives it
        raise UsageError("--classes is empty", hint=own)
    if "background" in given and "classes" not in given:
        raise UsageError("--background does nothing without --classes", hint=own)


def _show(made: Export, console: Console) -> None:
    rows = [("file", f"{made.path}, {made.size / 1e6:.1f} MB, opset {made.opset}")]
    rows += [("input", f"{_port(port)}, RGB from 0 to 255") for port in made.inputs]
    rows += [("output", _port(port)) for port in made.outputs]
    rows.append(("classes", f"{len(made.classes)}: {', '.join(made.classes.names)}"))
    for check in made.checks:
        batch, height, width = check.size
        seen = f"logits differ by at most {check.difference:.1e} of a range of {check.range:.3g}"
        rows.append(
            (
                "checked",
                f"{batch} x {height} x {width} pixels: {seen}, {check.equal_labels:.2%} of labels equal",
            )
        )
    console.table("", ("", ""), rows, left=(0, 1), wrap=(1,))


def _port(port: Port) -> str:
    return f"{port.name}: {port.type} [{', '.join(map(str, port.shape))}]"


def _document(made: Export) -> dict[str, Any]:
    """What --json prints."""
    classes = made.classes
    return {
        "file": str(made.path),
        "bytes": made.size,
        "opset": made.opset,
        "student": {
            "name": made.model.name,
            "path": made.model.pretrained,
            "fingerprint": made.model.fingerprint,
        },
        "inputs": [_port_document(port) for port in made.inputs],
        "outputs": [_port_document(port) for port in made.outputs],
        "classes": [
            {"id": i, "name": name, "words": list(words), "background": i == classes.background}
            for i, (name, words) in enumerate(zip(classes.names, classes.aliases, strict=True))
        ],
        "short_side": made.model.short_side,
        "checks": [
            {
                "batch": check.size[0],
                "height": check.size[1],
                "width": check.size[2],
                "max_difference": check.difference,
                "range": check.range,
                "equal_labels": check.equal_labels,
            }
            for check in made.checks
        ],
        "notes": list(made.notes),
    }


def _port_document(port: Port) -> dict[str, Any]:
    return {"name": port.name, "type": port.type, "shape": list(port.shape)}


COMMAND = opt.Command("export", export, EXAMPLES, order=60)
