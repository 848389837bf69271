"""`clipseg eval --methods`: call, show."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import typer

from clipseg_cli.cli.console import Console, Stopwatch, count, dataset_line
from clipseg_cli.cli.scores import as_percent
from clipseg_cli.errors import ClipsegError, RunError
from clipseg_cli.utils.text import format_seconds

if TYPE_CHECKING:
    from clipseg_cli.config import EvalConfig
    from clipseg_cli.evaluation.comparison import Comparison, Row

COLUMNS = ("method", "mIoU", "pixel acc.", "images/s", "cost", "published")


def compare(config: EvalConfig, methods: str, models: str, console: Console) -> None:
    """Score every method on every model, and print one table.

    Raises:
        ClipsegError: options that are wrong, or nobody who can take part.
        typer.Exit: with code 1 where images failed.
    """
    with console.waiting("loading"):
        from clipseg_cli.commands.compare import open_comparison

        comparison = open_comparison(config, _names(methods), _names(models))
    console.say(dataset_line(comparison.dataset, labels=True))
    for note in comparison.notes:
        console.say(f"Note: {note}")
    watch = Stopwatch()
    with (
        console.progress("evaluating", total=comparison.total) as advance,
        closing(iter(comparison)) as groups,
    ):
        before = 0
        for done in groups:
            for _ in range(done - before):
                advance()
            before = done
    for name, why in comparison.failures.items():
        console.error(ClipsegError(f"{name}: {why}"))
    if len(comparison.failures) == comparison.total:
        raise RunError(f"none of {comparison.total} images could be scored, and nothing was written")
    comparison.write()
    _show(comparison, console)
    ways = count(len(comparison.candidates), "candidate")
    images = count(comparison.total - len(comparison.failures), "image")
    console.say(f"{ways}, {images} each, in {format_seconds(watch.seconds)}, results in {comparison.out}")
    if comparison.failures:
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _show(comparison: Comparison, console: Console) -> None:
    rows = comparison.rows()
    if console.as_json:
        from clipseg_cli.outputs import json_safe

        console.document(json_safe({"folder": comparison.out, "rows": rows, "failed": comparison.failures}))
        return
    for model in dict.fromkeys(row.model for row in rows):
        table = [_cells(row) for row in rows if row.model == model]
        console.table(f"{model} on {comparison.device}, IoU in %", COLUMNS, table)
    published = {row.method: row.published for row in rows if row.published}
    if published:
        console.say(
            f"cost: time relative to plain CLIP; published: mIoU of {comparison.dataset.benchmark} on its own "
            "validation split (--verbose says with which backbone)"
        )
    for name, known in published.items():
        console.detail(f"  {name}: {known.method} {known.backbone}, {known.value:.1f}, {known.source}")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.method,
        as_percent(row.miou),
        as_percent(row.pixel_accuracy),
        f"{row.images_per_second:.3g}",
        "-" if row.cost is None else f"x {row.cost:.2f}",
        f"{row.published.value:.1f}" if row.published else "-",
    )
