"""Published results name a benchmark that exists, lie in a possible range and say where they come from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clipseg_cli.data import published
from clipseg_cli.data.classes import benchmark_names
from clipseg_cli.data.published import Published, ZeroShot, corruption_rows, published_rows, zero_shot_rows

FACTS = json.loads(Path(published.__file__).with_name("published.json").read_text("utf-8"))


def test_every_named_benchmark_exists():
    named = {name for row in FACTS["semantic_segmentation"] for name in row["mIoU"]}
    named |= {row["benchmark"] for row in FACTS["corruption"]["rows"]} | set(FACTS["zero_shot"]["column_of"])
    assert named <= set(benchmark_names())
    columns = {column for row in FACTS["zero_shot"]["table"].values() for column in row}
    assert columns == set(FACTS["zero_shot"]["splits"]) == set(FACTS["zero_shot"]["column_of"].values())


@pytest.mark.parametrize("name", benchmark_names())
def test_rows_are_sorted_sourced_and_possible(name):
    rows = published_rows(name)
    assert len(rows) == sum(name in row["mIoU"] for row in FACTS["semantic_segmentation"]) > 0
    assert [row.value for row in rows] == sorted(row.value for row in rows)
    assert all(0 < row.value < 100 and row.source and row.method and row.backbone for row in rows)


@pytest.mark.parametrize("name", benchmark_names())
def test_zero_shot_rows_are_possible(name):
    rows, split, source = zero_shot_rows(name)
    assert bool(rows) == bool(split) == bool(source) == (name in FACTS["zero_shot"]["column_of"])
    for row in rows:
        assert all(value is None or 0 <= value <= 100 for value in (row.unseen, row.all, row.harmonic))


def test_rows_hold_what_was_published():
    sclip = Published("sclip", "ViT-B-16", 59.63, "SCLIP README", "")
    assert sclip in published_rows("voc21")
    rows, split, source = zero_shot_rows("voc21")
    assert ZeroShot("MaskCLIP+", 86.1, 88.1, 87.4) in rows
    assert ZeroShot("fully supervised", None, 88.2, None) in rows
    assert split == "15 seen / 5 unseen"
    assert source.startswith("MaskCLIP paper")
    assert zero_shot_rows("voc20") == zero_shot_rows("voc21")
    (row,) = corruption_rows("voc20")
    assert (row.corruption, row.severity, row.value, row.clean) == ("speckle_noise", 1, 30.9, 41.5)


def test_an_unknown_benchmark_has_no_rows():
    assert published_rows("my photos") == corruption_rows("my photos") == []
    assert zero_shot_rows("my photos") == ([], "", "")


def test_reading_them_does_not_load_torch():
    code = (
        "import sys; from clipseg_cli.data.published import published_rows; published_rows('voc21');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
