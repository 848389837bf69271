"""What an evaluation leaves behind: `results.json`, `results.csv` and `confusion.png`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clipseg_cli.errors import ShapeError
from clipseg_cli.outputs._chart import write_chart
from clipseg_cli.outputs._confusion import confusion_figure
from clipseg_cli.outputs._run import json_safe
from clipseg_cli.outputs._text import drawable
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from clipseg_cli.types import ClassList

CSV_HEADER = {
    "id": "id",
    "name": "name",
    "zero_shot": "zero_shot",
    "iou": "iou_fraction",
    "accuracy": "accuracy_fraction",
    "precision": "precision_fraction",
    "f1": "f1_fraction",
    "labelled_pixels": "labelled_pixels",
    "predicted_pixels": "predicted_pixels",
}
"""Key of a row in `results.json` -> name of its column in `results.csv`."""

_IN_TITLE = ("dataset", "split", "method", "model")


def write_scores(
    record: Mapping[str, Any], confusion: NDArray[np.int64], classes: ClassList, out: Path
) -> list[Path]:
    """Write the three files into the folder `out` and return their paths.

    `results.json` is the record with two more keys: "classes", the rows of `class_rows`, and "confusion", the
    matrix as a list of rows. `results.csv` has the same rows and nothing else, so that every line is a class;
    what is undefined is an empty field there and null in JSON.

    Args:
        record: what the run was and what it scored. "unseen", names of classes, is read from it, and for the
            title of the image "dataset", "split", "method" and "model": each a text, or a mapping with a
            "title" or "name", or missing.
        confusion: [C, C + 1] pixels, row = truth, last column = predicted as no class.
        classes: what the ids mean.
        out: folder; made if it does not exist.

    Raises:
        OutputError: a file cannot be written.
        ShapeError: the matrix does not fit the classes, or an unseen name is none of them.
    """
    unseen = tuple(record.get("unseen") or ())
    rows = class_rows(confusion, classes, unseen)
    parts = [drawable(name, key)[0] for key in _IN_TITLE if (name := _name(record.get(key)))]
    iou = [row["iou"] for row in rows]
    if ious := [value for value in iou if value is not None]:
        parts.append(f"mIoU {100 * sum(ious) / len(ious):.1f} %")
    figure = confusion_figure(confusion, iou, classes, "  ·  ".join(parts))
    return [
        write_bytes(out / "results.json", _json({**record, "classes": rows}, confusion)),
        write_bytes(out / "results.csv", _csv(rows)),
        write_chart(figure, out / "confusion.png", tight=True),
    ]


def class_rows(
    confusion: NDArray[np.int64], classes: ClassList, unseen: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """The scores of each class, in label order, with the keys of CSV_HEADER.

    "zero_shot" is "seen" or "unseen", or None without a split. Rates are fractions in [0, 1], or None where
    there is nothing to divide by. "f1" is 2 I / (P + L): 0, not None, for a class that was missed altogether.

    Raises:
        ShapeError: as `write_scores`.
    """
    import torch  # not for `--help`

    from clipseg_cli.ops.metrics import score

    if confusion.shape != (len(classes), len(classes) + 1):
        raise ShapeError(f"a matrix of {confusion.shape} pixels does not fit {len(classes)} classes")
    if strangers := sorted(set(unseen) - set(classes.names)):
        raise ShapeError(f"'{strangers[0]}' cannot be unseen: it is none of the classes")
    found = score(torch.tensor(confusion))
    columns = {
        "iou": found.iou,
        "accuracy": found.accuracy,
        "precision": found.precision,
        "f1": found.dice,
        "labelled_pixels": found.labelled,
        "predicted_pixels": found.predicted,
    }
    lists = {key: json_safe(values.tolist()) for key, values in columns.items()}
    rows = []
    for i, name in enumerate(classes.names):
        side = ("unseen" if name in unseen else "seen") if unseen else None
        row = {"id": i, "name": json_safe(name), "zero_shot": side}
        rows.append(row | {key: values[i] for key, values in lists.items()})
    return rows


def _name(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("title") or value.get("name")
    return "" if value is None else str(json_safe(value))


def _json(record: Mapping[str, Any], confusion: NDArray[np.int64]) -> bytes:
    """Indented, but the matrix with one row a line: 171 classes would be 30,000 lines."""
    record = {key: value for key, value in record.items() if key != "confusion"}
    text = json.dumps(json_safe(record), indent=2, ensure_ascii=False).removesuffix("\n}")
    rows = ",\n".join(f"    {json.dumps(row)}" for row in confusion.tolist())
    return f'{text},\n  "confusion": [\n{rows}\n  ]\n}}\n'.encode()


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER.values())
    writer.writerows([row[key] for key in CSV_HEADER] for row in rows)  # None becomes an empty field
    return text.getvalue().encode()
