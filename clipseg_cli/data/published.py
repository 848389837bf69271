"""Published results, to stand beside one's own. The figures and where they come from lie in `published.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Published:
    """One published mean IoU.

    Attributes:
        method: as the source calls it, in lower case.
        backbone: the model or models behind it.
        value: mIoU in %.
        source: paper or README; "second-hand" where it is quoted by another.
        note: what differs from other rows; may be empty.
    """

    method: str
    backbone: str
    value: float
    source: str
    note: str


@dataclass(frozen=True)
class ZeroShot:
    """One row of the zero-shot table: mIoU in % of the unseen classes, of all classes, and the harmonic mean.

    The harmonic mean is that of seen and unseen classes. None where the source gives no figure.
    """

    method: str
    unseen: float | None
    all: float | None
    harmonic: float | None


@dataclass(frozen=True)
class Corrupted:
    """One published mIoU on corrupted images.

    Attributes:
        method, backbone: as in `Published`.
        corruption: its name ("speckle_noise").
        severity: 1 to 5.
        value: mIoU in % on the corrupted images.
        clean: mIoU in % on the untouched ones.
        source: where both come from.
    """

    method: str
    backbone: str
    corruption: str
    severity: int
    value: float
    clean: float
    source: str


def published_rows(benchmark: str) -> list[Published]:
    """Results that were published for a benchmark ("voc21"), the best last; empty where there are none."""
    rows = (
        Published(row["method"], row["backbone"], row["mIoU"][benchmark], row["source"], row["note"])
        for row in _facts()["semantic_segmentation"]
        if benchmark in row["mIoU"]
    )
    return sorted(rows, key=lambda row: row.value)


def best_row(method: str, benchmark: str, backbone: str) -> Published | None:
    """The published result to stand beside one's own, or None.

    Args:
        method: its name in this tool ("sc_clip").
        benchmark: as in "voc21".
        backbone: rows of the same one come first, then those without a refinement in their name.
    """
    rows = [row for row in published_rows(benchmark) if _is_of(row.method, method)]
    return min(rows, key=lambda row: (row.backbone != backbone, "+" in row.method), default=None)


@dataclass(frozen=True)
class Average:
    """Mean of the published mIoU of one method over several benchmarks, in %."""

    method: str
    backbone: str
    value: float
    benchmarks: int
    source: str


def published_average(method: str) -> Average | None:
    """That of the publication with the most benchmarks; None where there is none."""
    rows = [row for row in _facts()["semantic_segmentation"] if _is_of(row["method"], method)]
    if not rows:
        return None
    return _average(max(rows, key=lambda row: len(row["mIoU"])))


def average_of(method: str, backbone: str) -> Average | None:
    """That of this method and this backbone, as sources call them, over most benchmarks; None where there is none."""
    rows = [
        row
        for row in _facts()["semantic_segmentation"]
        if (row["method"], row["backbone"]) == (method, backbone)
    ]
    return _average(max(rows, key=lambda row: len(row["mIoU"]))) if rows else None


def _average(row: dict[str, Any]) -> Average:
    values = list(row["mIoU"].values())
    return Average(row["method"], row["backbone"], sum(values) / len(values), len(values), row["source"])


def _is_of(published: str, method: str) -> bool:
    """Whether a published name is that method, or with refinements, as in "naclip+pamr"; "maskclip+" is a student."""
    base, *refined = published.split("+")
    return base == method.replace("_", "-") and refined != [""]


def validation_images(benchmark: str) -> int | None:
    """Images in the validation split that the published figures are about; None for an unknown benchmark."""
    return _facts()["validation_images"].get(benchmark)  # type: ignore[no-any-return]


def zero_shot_rows(benchmark: str) -> tuple[list[ZeroShot], str, str]:
    """The zero-shot table of a benchmark, in the order of the paper.

    Returns:
        rows, the split as text ("15 seen / 5 unseen"), and the source. All empty where nothing was published.
    """
    facts = _facts()["zero_shot"]
    column = facts["column_of"].get(benchmark)  # the lists with and without a background share one
    rows = [ZeroShot(method, *row[column]) for method, row in facts["table"].items() if column in row]
    return (rows, facts["splits"][column], facts["source"]) if rows else ([], "", "")


def corruption_rows(benchmark: str) -> list[Corrupted]:
    """Results that were published for corrupted images of a benchmark; mostly none."""
    facts = _facts()["corruption"]
    common = ("method", "backbone", "corruption", "severity", "clean")
    return [
        Corrupted(value=row["mIoU"], source=facts["source"], **{key: row[key] for key in common})
        for row in facts["rows"]
        if row["benchmark"] == benchmark
    ]


@cache
def _facts() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(_FILE.read_text("utf-8"))
    return facts
