"""In which order somebody may correct the images of a folder: names, those to be corrected first in front.

An order takes the options of `clipseg index` as they are typed, the names, and a folder to write in; it gives one list
for each draw where there is chance in it, and one otherwise.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def drawn(names: Sequence[str], draws: int) -> list[list[str]]:
    """At random; equal numbers of draws begin with equal lists."""
    generators = (torch.Generator().manual_seed(draw) for draw in range(draws))
    return [[names[i] for i in torch.randperm(len(names), generator=one).tolist()] for one in generators]


def suggested(folder: str, split: str, count: int, options: Sequence[str], work: Path) -> list[str]:
    """As `clipseg index --suggest` names them."""
    bank = ("--out", str(work / "no-bank"))
    return _clipseg("index", folder, "--split", split, "--suggest", str(count), *options, *bank).split()


def least_trusted(folder: str, split: str, options: Sequence[str], work: Path) -> list[str]:
    """As `clipseg review` sorts what `clipseg pseudolabel` has written."""
    name = "reviewed"
    _clipseg("pseudolabel", folder, "--split", split, *options, "--out", str(work), "--name", name)
    _clipseg("review", str(work / name))
    with (work / name / "review.csv").open(encoding="utf-8", newline="") as file:
        return [row["image"] for row in csv.DictReader(file)]


def _clipseg(*line: str) -> str:
    """What a command prints on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "clipseg_cli", *line], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout
