"""Figures in README and docs are those in docs/figures.json, which `benchmarks.collect` takes from measurements."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from clipseg_cli.models.clip.architectures import bundled_file
from clipseg_cli.models.clip.backbones import load_backbone

ROOT = Path(__file__).parent.parent
FIGURES = json.loads((ROOT / "docs" / "figures.json").read_text(encoding="utf-8"))
TABLE = re.compile(r"^<!-- figures: (.+?) -->\n\n?((?:\|.*\n)+)", re.MULTILINE)
TABLES = [
    (path.name, name, [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()])
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for name, body in TABLE.findall(path.read_text(encoding="utf-8"))
]


def test_there_are_such_tables():
    assert {name for _, name, _ in TABLES} <= set(FIGURES)


@pytest.mark.parametrize(
    ("page", "name", "lines"), TABLES, ids=[f"{page}-{name}" for page, name, _ in TABLES]
)
def test_a_table_says_what_was_measured(page, name, lines):
    header, rows, checked = lines[0], lines[2:], 0
    for row in rows:
        measured = FIGURES[name][row[0].strip("*`")]
        for column, cell in zip(header[1:], row[1:], strict=True):
            if column in measured:
                assert cell.strip("*") == f"{measured[column]:.1f}", f"{page}: {row[0]}, {column}"
                checked += 1
    assert checked >= len(rows)


def test_they_are_about_the_weights_in_the_package():
    assert bundled_file("model.safetensors").is_file()
    weights = load_backbone("emoji", None, "cpu").fingerprint
    told = {
        value["weights"]
        for rows in FIGURES.values()
        for row in rows.values()
        for column, value in row.items()
        if column.endswith(", of")
    }
    assert told == {weights}
