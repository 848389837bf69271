"""What `clipseg eval` has scored: one model or folder of predictions, or a student beside its teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from clipseg_cli.cli.scores import SUMMARY_NAMES, as_percent, show_report

if TYPE_CHECKING:
    from clipseg_cli.cli.console import Console
    from clipseg_cli.evaluation.model_scoring import ModelScoring
    from clipseg_cli.evaluation.predictions import PredictionScoring
    from clipseg_cli.evaluation.report import Report


class Scored(NamedTuple):
    """One evaluation that has ended.

    Attributes:
        seconds: that its images took.
        first: this process is the one that shows results.
    """

    evaluation: ModelScoring | PredictionScoring
    report: Report
    seconds: float
    first: bool


def show_results(scored: list[Scored], console: Console) -> None:
    """The report of the first, and a second one beside it; or one JSON document."""
    own = scored[0]
    if not own.first:
        return
    if console.as_json:
        from clipseg_cli.outputs import json_safe

        document = json_safe(own.report)
        if len(scored) > 1:
            document["teacher"] = json_safe(scored[1].report)
        console.document(document)
        return
    show_report(own.report, own.evaluation, console)
    if len(scored) > 1:
        _show_beside(own, scored[1], console)


def _show_beside(student: Scored, teacher: Scored, console: Console) -> None:
    """Every figure of both, and by how much they differ."""
    ours, theirs = student.report, teacher.report
    rows = [
        (a["name"], *_figures(a["iou"], b["iou"])) for a, b in zip(ours.classes, theirs.classes, strict=True)
    ]
    console.table("The student beside its teacher, IoU in %", COLUMNS, rows)
    figures: list[tuple[str, ...]] = [
        (SUMMARY_NAMES[key], *_figures(value, theirs.summary[key]))
        for key, value in ours.summary.items()
        if value is not None
    ]
    if ours.corruptions and theirs.corruptions:
        figures.append(("mIoU, corrupted", *_figures(ours.corruptions.mean, theirs.corruptions.mean)))
    speeds = [one.report.images / max(one.seconds, 1e-9) for one in (student, teacher)]
    figures.append(
        ("images/s", *(f"{speed:.3g}" for speed in speeds), f"x {speeds[0] / max(speeds[1], 1e-9):.2f}")
    )
    console.table("", ("all together, in %", *COLUMNS[1:]), figures)


COLUMNS = ("class", "student", "teacher", "difference")


def _figures(ours: float | None, theirs: float | None) -> tuple[str, str, str]:
    both = ours is not None and theirs is not None
    gain: Any = 100 * (ours - theirs) if ours is not None and theirs is not None else None
    return as_percent(ours), as_percent(theirs), f"{gain:+.1f}" if both else "-"
