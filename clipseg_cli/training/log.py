"""What a training run notes on its way: two CSV files, TensorBoard events, curves and sample predictions.

`log.csv` has a row for each iteration that was noted, `validation.csv` one for each validation. A row is written when
the call returns, so a killed run loses at most the line that it was writing. That half line is dropped when the run
goes on.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from clipseg_cli.config import FORMER_NAMES
from clipseg_cli.errors import RunError
from clipseg_cli.outputs import draw_curves, write_label_sheet
from clipseg_cli.utils.files import output_errors, write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch.utils.tensorboard import SummaryWriter

    from clipseg_cli.outputs import LabelRow
    from clipseg_cli.types import ClassList

LOG, VALIDATION = "log.csv", "validation.csv"
CURVES, PREDICTIONS = "curves.png", "predictions.png"
TENSORBOARD = "tensorboard"

AVERAGED = 20
"""Over how many iterations images per second are averaged."""


@dataclass(frozen=True)
class Step:
    """One iteration.

    Attributes:
        iteration: how many are done, this one included.
        loss: of the labels.
        lr: learning rate.
        stage: where the labels came from: "guided", "self-training", "ground truth" ...
        labelled: share of the pixels that are in the loss, in [0, 1].
        images_per_second: over all processes.
        distill: loss of the distillation, or None without it.
    """

    iteration: int
    loss: float
    lr: float
    stage: str
    labelled: float
    images_per_second: float
    distill: float | None = None


@dataclass(frozen=True)
class Validation:
    """What the student scored after so many iterations.

    Attributes:
        iteration: how many were done.
        miou, pixel_accuracy: in [0, 1].
        images: how many were scored.
    """

    iteration: int
    miou: float
    pixel_accuracy: float
    images: int


Row = TypeVar("Row", bound="Step | Validation")


class TrainingLog:
    """The records of one run; to be closed, or used in a `with`.

    Args:
        folder: of the run; made if it does not exist.
        done: iterations that the run goes on from. Later rows are dropped, and TensorBoard forgets what it was told
            about later iterations. 0 begins anew, in place of what an unfinished beginning left.

    Raises:
        RunError: a CSV file of the run that goes on is not one of ours.
        OutputError: a file cannot be written.
    """

    def __init__(self, folder: Path, *, done: int = 0) -> None:
        self.folder = folder
        if not done:
            _clear(folder)
        _rewrite(folder / LOG, Step, done)
        _rewrite(folder / VALIDATION, Validation, done)
        self._board = _board(folder / TENSORBOARD, done)

    def step(self, step: Step) -> None:
        """Note an iteration.

        Raises:
            OutputError: it cannot be written.
        """
        _append(self.folder / LOG, step)
        self._scalars(
            step.iteration,
            {
                "train/loss": step.loss,
                "train/learning_rate": step.lr,
                "train/labelled": step.labelled,
                "train/images_per_second": step.images_per_second,
                "train/distill": step.distill,
            },
        )

    def validation(self, validation: Validation) -> None:
        """Note a validation.

        Raises:
            OutputError: it cannot be written.
        """
        _append(self.folder / VALIDATION, validation)
        scores = {"val/mIoU": validation.miou, "val/pixel_accuracy": validation.pixel_accuracy}
        self._scalars(validation.iteration, scores)
        with output_errors(self.folder / TENSORBOARD):
            self._board.flush()

    def draw(self) -> Path:
        """Draw `curves.png` again from the two CSV files.

        Raises:
            OutputError: it cannot be written.
            RunError: another program changed one of the files.
        """
        path = self.folder / CURVES
        steps = [(step.iteration, step.loss, step.lr, step.stage) for step in read_log(self.folder)]
        draw_curves(steps, [(v.iteration, v.miou) for v in read_validation(self.folder)], path)
        return path

    def sample_sheet(self, iteration: int, rows: Sequence[LabelRow], classes: ClassList) -> Path:
        """Write `predictions.png`, and show it in TensorBoard.

        Args:
            iteration: how many are done.
            rows: with maps of what was taught, of the prediction and of the ground truth.
            classes: what the labels mean.

        Raises:
            OutputError: it cannot be written.
        """
        columns = ("taught", "prediction", "ground truth")
        path = write_label_sheet(rows, columns, classes, self.folder / PREDICTIONS)
        with Image.open(path) as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
        with output_errors(self.folder / TENSORBOARD):
            self._board.add_image("val/predictions", pixels, iteration, dataformats="HWC")
        return path

    def close(self) -> None:
        """Close TensorBoard's file; a second call does nothing."""
        with output_errors(self.folder / TENSORBOARD):
            self._board.close()

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _scalars(self, iteration: int, values: Mapping[str, float | None]) -> None:
        with output_errors(self.folder / TENSORBOARD):
            for tag, value in values.items():
                if value is not None:
                    self._board.add_scalar(tag, value, iteration)


class Throughput:
    """Images per second over the last iterations.

    Args:
        images: in one iteration.
    """

    def __init__(self, images: int) -> None:
        self.images, self._ends = images, [time.monotonic()]

    def tick(self) -> float:
        """Images per second, at the end of an iteration."""
        self._ends = [*self._ends[-AVERAGED:], time.monotonic()]
        return self.images * (len(self._ends) - 1) / max(self._ends[-1] - self._ends[0], 1e-9)

    def restart(self) -> None:
        """After something else took time."""
        self._ends = [time.monotonic()]


def read_log(folder: Path) -> list[Step]:
    """The iterations noted in the folder of a run, in order; none if there is no log.

    Raises:
        RunError: the file is not a log of ours.
    """
    return _read(folder / LOG, Step)


def read_validation(folder: Path) -> list[Validation]:
    """The validations noted in the folder of a run, in order; none if there is no file of them.

    Raises:
        RunError: the file is not one of ours.
    """
    return _read(folder / VALIDATION, Validation)


def _board(folder: Path, done: int) -> SummaryWriter:
    """TensorBoard's writer; readers drop what older files say about iterations after `done`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of third parties, about each other
        from torch.utils.tensorboard import SummaryWriter
    with output_errors(folder):
        return SummaryWriter(str(folder), purge_step=done + 1 if done else None, flush_secs=10)


def _clear(folder: Path) -> None:
    """Remove what an unfinished beginning left and the new one does not overwrite at once."""
    with output_errors(folder):
        for path in (folder / CURVES, folder / PREDICTIONS, *(folder / TENSORBOARD).glob("events.out.*")):
            path.unlink(missing_ok=True)


def _rewrite(path: Path, kind: type[Row], done: int) -> None:
    """Leave the rows of the first `done` iterations, or the file as it was."""
    rows = [dataclasses.astuple(row) for row in (_read(path, kind) if done else ()) if row.iteration <= done]
    write_bytes(path, b"".join(map(_line, (_columns(kind), *rows))))


def _append(path: Path, row: Step | Validation) -> None:
    with output_errors(path), path.open("ab") as file:
        file.write(_line(dataclasses.astuple(row)))


def _columns(kind: type[Row]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _line(values: Sequence[Any]) -> bytes:
    """One line of CSV; None becomes an empty field, and a float all its digits."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def _read(path: Path, kind: type[Row]) -> list[Row]:
    """The whole lines of a file, if it is there."""
    hint = "move the file away; the run goes on without what it held"
    try:
        text = path.read_text(encoding="utf-8")
        lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"cannot read {path}: {error}", hint=hint) from error
    columns, rows = _columns(kind), list[Row]()
    if lines and [FORMER_NAMES.get(name, name) for name in lines[0]] != columns:
        raise RunError(f"{path}:1: the columns are not {', '.join(columns)}", hint=hint)
    parsers = [_PARSERS[str(field.type)] for field in dataclasses.fields(kind)]
    for number, line in enumerate(lines[1:], start=2):
        try:
            rows.append(kind(*(parse(value) for parse, value in zip(parsers, line, strict=True))))
        except ValueError as error:
            raise RunError(f"{path}:{number}: not a row of {path.name}", hint=hint) from error
    return rows


_PARSERS: Mapping[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "float | None": lambda text: float(text) if text else None,
}
