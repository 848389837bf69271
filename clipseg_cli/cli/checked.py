"""What `clipseg eval RUN` shows: how good labels are on the images that humans answer for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipseg_cli.cli.console import Console, count
from clipseg_cli.cli.scores import as_percent
from clipseg_cli.errors import UsageError

if TYPE_CHECKING:
    from clipseg_cli.evaluation.checked import CheckedReport

GOES_WITH = {"checked", "predictions", "as_json", "quiet", "verbose"}
NAMES = {"mIoU": "mIoU", "pixel_accuracy": "pixel accuracy"}


def evaluate_checked(given: dict[str, Any], console: Console) -> None:
    """Score and show.

    Args:
        given: the options that the user wrote.
        console: of the command.

    Raises:
        ClipsegError: an option that says nothing here, or no human label.
    """
    if strange := sorted(given.keys() - GOES_WITH):
        option = f"--{strange[0].replace('_', '-')}"
        raise UsageError(
            f"{option} does not go with RUN, whose labels are scored against those of humans",
            hint=f"leave out {option}; --run RUN evaluates the model of a run on ground truth",
        )
    if not given["checked"].strip():
        raise UsageError("RUN is empty", hint="name a run with imported labels")
    with console.waiting("loading"):
        from clipseg_cli.evaluation.checked import score_checked  # torch loads here, not for --help
    _show(score_checked(given["checked"], given.get("predictions", "")), console)


def _show(report: CheckedReport, console: Console) -> None:
    from clipseg_cli.outputs import class_rows

    rows = class_rows(report.confusion, report.classes)
    held = sum(image.record.hold_out for image in report.images)
    if console.as_json:
        console.document(_document(report, rows))
    console.say(
        f"{report.scored} on {count(len(report.images), 'image')} of {report.run} that a human has corrected or checked"
        + (f", {held} of them held out of training" if held else "")
    )
    total = sum(row["labelled_pixels"] for row in rows) or 1
    console.table(
        "",
        ("class", "IoU", "accuracy", "of the pixels"),
        [
            (
                row["name"],
                as_percent(row["iou"]),
                as_percent(row["accuracy"]),
                f"{100 * row['labelled_pixels'] / total:.1f}",
            )
            for row in rows
        ],
    )
    found = {"mIoU": report.scores.miou, "pixel_accuracy": report.scores.pixel_accuracy}
    shown = []
    for name, value in found.items():
        low, high = report.intervals.get(name, (float("nan"), float("nan")))
        between = f"{as_percent(low)} to {as_percent(high)}" if low == low else "-"
        shown.append((NAMES[name], as_percent(value), between))
    console.table("", ("all together", "in %", "95 % interval over images"), shown)
    for note in report.notes:
        console.say(f"Note: {note}")


def _document(report: CheckedReport, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "run": str(report.run),
        "scored": report.scored,
        "images": [
            {
                "image": image.record.image,
                "kind": image.record.kind,
                "by": image.record.by,
                "hold_out": image.record.hold_out,
                "mIoU": image.miou,
                "pixel_accuracy": image.pixel_accuracy,
            }
            for image in report.images
        ],
        "mIoU": report.scores.miou,
        "pixel_accuracy": report.scores.pixel_accuracy,
        "intervals": {name: list(ends) for name, ends in report.intervals.items()},
        "classes": rows,
        "notes": list(report.notes),
    }
