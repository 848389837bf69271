"""`clipseg models`: what can be loaded, what is on this machine, what gives dense features."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console as RichConsole
from rich.table import Table

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import PLAIN_WIDTH, Console, count, data_errors
from clipseg_cli.cli.qualities import recipe_rows, recipe_table
from clipseg_cli.cli.region_sources import region_rows, region_table
from clipseg_cli.errors import UsageError, did_you_mean

EXAMPLES = """
[bold]Examples[/bold]
  clipseg models
  clipseg models ViT-B-16
  clipseg models --cached --json
  clipseg models --methods
  clipseg models --formats
  clipseg models --regions
  clipseg models --recipes
"""

TAGS_SHOWN = 6


def models(
    matching: Annotated[
        str, typer.Argument(metavar="FILTER", help="Only names that contain this.", show_default=False)
    ] = "",
    cached: Annotated[
        bool, typer.Option("--cached", help="Only those with weights on this machine.")
    ] = False,
    methods: Annotated[
        bool, typer.Option("--methods", help="List the ways to read dense labels instead.")
    ] = False,
    formats: Annotated[
        bool, typer.Option("--formats", help="List the formats that label maps are written in instead.")
    ] = False,
    regions: Annotated[
        bool, typer.Option("--regions", help="List where masks of regions may come from instead.")
    ] = False,
    recipes: Annotated[
        bool,
        typer.Option(
            "--recipes", help="List what --quality stands for instead: needs, cost, published means."
        ),
    ] = False,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """List the architectures and weights that --model and --pretrained take.

    Says of each whether its weights are on this machine, whether this tool can read it densely, and how many
    parameters its image and text side have.
    """
    console = Console(as_json=as_json, quiet=quiet)
    if methods + regions + formats + recipes > 1:
        raise UsageError(
            "--methods, --regions, --formats and --recipes list different things",
            hint="leave out all but one of them",
        )
    if recipes:
        _show_recipes(matching, console)
        return
    if formats:
        _show_formats(matching, console)
        return
    with console.waiting("counting parameters"):
        rows = _rows(matching, cached, methods=methods, regions=regions)
    if as_json:
        console.document(rows)
    elif not quiet:
        with data_errors():
            if regions:
                _print(region_table(rows))
                return
            _print(_method_table(rows) if methods else _model_table(rows))
            if methods and not matching:
                _print(region_table(region_rows("")))
                _print(_settings_table())
        if methods:
            console.say(
                "cost: time relative to plain CLIP; published: mean mIoU in % over so many benchmarks"
            )
        else:
            readable = sum(row["dense"] for row in rows)
            console.say(f"{count(len(rows), 'architecture')}, {readable} readable densely; * on this machine")


def _show_recipes(matching: str, console: Console) -> None:
    rows = recipe_rows(matching)
    if console.as_json:
        console.document(rows)
        return
    with data_errors():
        _print(recipe_table(rows))
    console.say(
        "cost: of the method, relative to plain CLIP; +: and more for regions and propagation. published: mean mIoU "
        "in % over so many benchmarks, of what comes nearest"
    )


def _show_formats(matching: str, console: Console) -> None:
    from clipseg_cli.outputs import FORMATS, shown_name

    rows: list[dict[str, Any]] = [
        {
            "name": shown_name(name),
            "summary": FORMATS.get(name).summary,
            "default": FORMATS.get(name).default,
            "options": _hyperparameters(FORMATS.get(name)),
        }
        for name in FORMATS.names()
        if matching.lower().replace("-", "_") in name
    ]
    if console.as_json:
        console.document(rows)
        return
    table = [
        (
            row["name"] + ("*" if row["default"] else ""),
            row["summary"],
            ", ".join(f"{o['name']}={str(o['default']).lower()}" for o in row["options"]),
        )
        for row in rows
    ]
    console.table("", ("format", "what is written", "--set"), table, left=(0, 1, 2), wrap=(1, 2))
    console.say(f"{count(len(rows), 'format')}; * without being asked for; as in --set coco.min_area=16")


def _rows(matching: str, cached: bool, *, methods: bool, regions: bool) -> list[dict[str, Any]]:
    if regions:
        return region_rows(matching)
    return _method_rows(matching) if methods else _model_rows(matching, cached)


def _method_rows(matching: str) -> list[dict[str, Any]]:
    from clipseg_cli.data.published import published_average
    from clipseg_cli.methods import METHODS, variants

    entries = [(name, METHODS.get(name)) for name in METHODS.names() if matching.lower() in name]
    return [
        {
            "name": name,
            "summary": method.summary,
            "paper": method.paper,
            "reference": method.reference,
            "cost": method.cost,
            "guided": bool(method.guided),
            "regions": method.read_regions is not None,
            "variants": list(variants(name)),
            "hyperparameters": _hyperparameters(method),
            "published": asdict(average) if (average := published_average(name)) else None,
        }
        for name, method in entries
    ]


def _hyperparameters(entry: Any) -> list[dict[str, Any]]:
    from clipseg_cli.inference.hyperparameters import hyperparameters_of

    return [
        {"name": one.name, "default": one.default, "takes": one.wanted()}
        for one in hyperparameters_of(entry).values()
    ]


def _settings_table() -> Table:
    """What `--set` takes, of methods, refinements, sources of regions and formats."""
    from clipseg_cli.methods import METHODS
    from clipseg_cli.outputs import FORMATS
    from clipseg_cli.refinements import REFINEMENTS
    from clipseg_cli.regions import REGIONS

    table = Table(box=None, pad_edge=False)
    for column in ("--set", "default", "takes"):
        table.add_column(column, no_wrap=column != "takes")
    registries: tuple[Any, ...] = (METHODS, REFINEMENTS, REGIONS, FORMATS)
    for registry in registries:
        for owner in registry.names():
            for row in _hyperparameters(registry.get(owner)):
                default = row["default"]
                text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
                table.add_row(f"{owner}.{row['name']}", "auto" if default is None else text, row["takes"])
    return table


def _model_rows(matching: str, cached: bool) -> list[dict[str, Any]]:
    from clipseg_cli.models.clip.architectures import list_architectures
    from clipseg_cli.models.clip.catalogue import list_backbones

    found = list_backbones(matching)
    if not found:
        raise UsageError(
            f"no architecture has '{matching}' in its name",
            hint=did_you_mean(matching, list_architectures()) or "'clipseg models' lists all",
        )
    return [{**asdict(info), "cached": info.cached} for info in found if info.cached or not cached]


def _method_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("what it does", ratio=1)
    table.add_column("paper", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("published", no_wrap=True)
    for row in rows:
        asks = "--regions" if row["regions"] else "--guide" if row["guided"] else ""
        name = row["name"] + (f" [yellow]{asks}[/yellow]" if asks else "")
        paper = row["paper"].removeprefix("arXiv:")
        table.add_row(name, row["summary"], paper, f"{row['cost']:.1f}", _published(row))
    return table


def _published(row: dict[str, Any]) -> str:
    """As in "39.1 of 8", or "42.5 of 8 (naclip+pamr)" where the source has another name for what it measured."""
    average = row["published"]
    if average is None:
        return "-"
    refined = average["method"] != row["name"].replace("_", "-")
    return f"{average['value']:.1f} of {average['benchmarks']}" + (
        f" ({average['method']})" if refined else ""
    )


def _model_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("architecture", no_wrap=True)
    table.add_column("weights", ratio=2)
    table.add_column("px", justify="right")
    table.add_column("image + text, M", justify="right", no_wrap=True)
    table.add_column("dense", ratio=1)
    for row in rows:
        table.add_row(
            row["name"], _tags(row["tags"]), str(row["image_size"] or ""), _params(row), _dense(row)
        )
    return table


def _tags(tags: list[dict[str, Any]]) -> str:
    """Cached ones first, with a star; the rest counted when there are many."""
    ordered = sorted(tags, key=lambda t: not t["cached"])
    names = [f"[green]{t['tag']}*[/green]" if t["cached"] else str(t["tag"]) for t in ordered]
    more = f" and {len(names) - TAGS_SHOWN} more" if len(names) > TAGS_SHOWN else ""
    return ", ".join(names[:TAGS_SHOWN]) + more if names else "[dim]none: give a file[/dim]"


def _params(row: dict[str, Any]) -> str:
    def millions(count: int) -> str:
        return f"{count / 1e6:.0f}" if count >= 10e6 else f"{count / 1e6:.1f}"

    image, total = row["image_params"], row["total_params"]
    if image is None:
        return ""
    return f"{millions(image)} + {'?' if total is None else millions(total - image)}"


def _dense(row: dict[str, Any]) -> str:
    needs = f" [yellow](needs {row['needs']})[/yellow]" if row["needs"] else ""
    return "[green]yes[/green]" + needs if row["dense"] else f"[dim]no: {row['reason']}[/dim]"


def _print(table: Table) -> None:
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    RichConsole(width=width, highlight=False, emoji=False).print(table)


COMMAND = opt.Command("models", models, EXAMPLES, order=80)
