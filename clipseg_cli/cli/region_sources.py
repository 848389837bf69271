"""What `clipseg models --regions` lists: where masks of regions may come from."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from rich.table import Table


def region_rows(matching: str) -> list[dict[str, Any]]:
    """One for each source whose name holds a text."""
    from clipseg_cli.regions import REGIONS

    entries = [(name, REGIONS.get(name)) for name in REGIONS.names() if matching.lower() in name]
    return [
        {
            "name": name,
            "summary": source.summary,
            "takes": source.files,
            "weights": source.weights,
            "licence": source.licence,
            "packages": list(source.packages),
            "installed": all(find_spec(package) is not None for package in source.packages),
            "paper": source.paper,
            "seconds": source.cost,
        }
        for name, source in entries
    ]


def region_table(rows: list[dict[str, Any]]) -> Table:
    """The same for people."""
    table = Table(box=None, pad_edge=False)
    table.add_column("regions", no_wrap=True)
    table.add_column("what it gives", ratio=1)
    table.add_column("needs", ratio=1)
    table.add_column("licence", no_wrap=True)
    for row in rows:
        takes = f"=[dim]{row['takes']}[/dim]" if row["takes"] else ""
        needs = row["weights"] or ("a folder" if row["takes"] == "FOLDER" else "no weights")
        if not row["installed"]:
            needs += ' [yellow](pip install "clipseg-cli\\[regions]")[/yellow]'
        table.add_row(row["name"] + takes, row["summary"], needs, row["licence"].partition(" ")[0])
    return table
