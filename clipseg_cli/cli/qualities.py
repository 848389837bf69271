"""`--quality`: what it needs, said before anything is fetched; and what `clipseg models --recipes` lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from clipseg_cli.config import all_qualities, quality_for

if TYPE_CHECKING:
    from clipseg_cli.cli.console import Console
    from clipseg_cli.config import InferenceConfig, Quality

MODELS = {"clip": "the ViTs of CLIP", "bundled": "emoji", "other": "other towers"}
"""Kind of tower -> for people."""


def say_needs(config: InferenceConfig, console: Console) -> None:
    """What the chosen quality is and needs, in a line each, before anything is loaded."""
    if not config.quality or config.student:
        return
    quality = quality_for(config.quality, config.model)
    console.say(f"--quality {quality.name} with {config.model}: {in_words(quality)}")
    if quality.needs:
        console.say(f"It needs, beside the model: {'; '.join(quality.needs)}")


def in_words(quality: Quality) -> str:
    """As in "--method corrclip --guide dino-b8 --regions eomt --region-vote"."""
    named = (
        ("method", quality.method),
        ("guide", quality.guide),
        ("propagate", quality.propagate),
        ("saliency", quality.saliency),
        ("regions", quality.regions),
    )
    options = [f"--{name} {value}" for name, value in named if value]
    return " ".join([*options, *(["--region-vote"] if quality.region_vote else [])])


def recipe_rows(matching: str) -> list[dict[str, Any]]:
    """One for each quality and kind of tower whose name, or that of its method, holds a text."""
    rows = []
    for one in all_qualities():
        if matching.lower() in one.name or matching.lower() in one.method:
            rows.append(
                {
                    "name": one.name,
                    "model": MODELS[one.kind],
                    "options": in_words(one),
                    "needs": list(one.needs),
                    "cost": _cost(one),
                    "published": _published(one),
                    "apart": one.apart,
                    "measured": one.measured,
                }
            )
    return rows


def _cost(quality: Quality) -> float:
    """Time of an image relative to plain CLIP, without what makes regions and without propagation."""
    from clipseg_cli.methods import find_method

    return find_method(quality.method).cost


def _published(quality: Quality) -> list[dict[str, Any]]:
    """The published means that come nearest."""
    from clipseg_cli.data.published import average_of

    return [
        {"method": method, "backbone": backbone, "value": found.value, "benchmarks": found.benchmarks}
        for method, backbone in quality.published
        if (found := average_of(method, backbone)) is not None
    ]


def recipe_table(rows: list[dict[str, Any]]) -> Table:
    """The same for people."""
    table = Table(box=None, pad_edge=False)
    table.add_column("--quality", no_wrap=True)
    table.add_column("with", no_wrap=True)
    table.add_column("what it is", ratio=3, overflow="fold")
    table.add_column("needs", ratio=2, overflow="fold")
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("published, or measured", ratio=2, overflow="fold")
    for row in rows:
        needs = "; ".join(row["needs"]).replace("[", "\\[") or "nothing"
        cost = f"{row['cost']:.1f}" + ("+" if row["options"].count("--") > 1 else "")
        table.add_row(row["name"], row["model"], row["options"], needs, cost, _figures(row))
    return table


def _figures(row: dict[str, Any]) -> str:
    found = [f"{one['value']:.1f} of {one['benchmarks']} ({one['backbone']})" for one in row["published"]]
    text = ", ".join(found) + (f"; {row['apart']}" if row["apart"] else "")
    return text or row["measured"] or "-"
