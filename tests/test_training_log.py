"""The log of a run: every row on the disk at once, and after an interruption no row twice."""

from __future__ import annotations

import math
import os
import signal
import warnings

import numpy as np
import pytest
from PIL import Image

from clipseg_cli.errors import OutputError, RunError
from clipseg_cli.outputs import LabelRow
from clipseg_cli.training.log import Step, TrainingLog, Validation, read_log, read_validation
from clipseg_cli.types import ClassList

CLASSES = ClassList(("cat", "dog"), (("cat",), ("dog",)))
HEADER = "iteration,loss,lr,stage,labelled,images_per_second,distill"


def step(iteration, loss=0.1, **facts):
    stage = "guided" if iteration <= 2 else "self-training"
    usual = {"lr": 1 / 3, "stage": stage, "labelled": 0.7, "images_per_second": 12.5}
    return Step(iteration, loss, **usual | facts)


def validation(iteration, miou=0.25):
    return Validation(iteration, miou, 2 / 3, 24)


def fill(folder, first, last, *, done=0, every=2):
    with TrainingLog(folder, done=done) as log:
        for i in range(first, last + 1):
            log.step(step(i, loss=1 / i))
            if i % every == 0:
                log.validation(validation(i, i / 100))


def board(folder):
    """What a reader of TensorBoard shows: tag -> {step: value}."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of third parties, about each other
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    shown = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return shown, {tag: events.Images(tag) for tag in events.Tags()["images"]}


def test_rows_come_back_as_they_were(tmp_path):
    noted = [
        step(1, loss=0.1 + 0.2),
        step(2, loss=math.inf, distill=1e-30),
        step(3, loss=1e300, stage='a "stage", with a comma'),
        step(40_000, loss=-0.0, lr=5e-324, distill=0.0),
    ]
    scored = [validation(1, 1 / 3), validation(2, 0.0)]
    with TrainingLog(tmp_path) as log:
        for s in noted:
            log.step(s)
        for v in scored:
            log.validation(v)
    assert read_log(tmp_path) == noted
    assert read_validation(tmp_path) == scored


def test_a_loss_that_is_no_number_comes_back_too(tmp_path):
    with TrainingLog(tmp_path) as log:
        log.step(step(1, loss=math.nan))
        log.validation(validation(1, math.nan))
    assert math.isnan(read_log(tmp_path)[0].loss)
    assert math.isnan(read_validation(tmp_path)[0].miou)


def test_numpy_numbers_are_written_as_numbers(tmp_path):
    with TrainingLog(tmp_path) as log:
        log.step(step(np.int64(3), loss=np.float64(0.1), distill=np.float32(0.5)))
    assert read_log(tmp_path) == [step(3, loss=0.1, distill=0.5)]


def test_the_log_is_a_plain_table(tmp_path):
    with TrainingLog(tmp_path) as log:
        log.step(step(1, loss=0.5))
        log.validation(Validation(1, 0.25, 0.5, 24))
    log = (tmp_path / "log.csv").read_text().splitlines()
    assert log == [HEADER, "1,0.5,0.3333333333333333,guided,0.7,12.5,"]
    scores = (tmp_path / "validation.csv").read_text().splitlines()
    assert scores == ["iteration,miou,pixel_accuracy,images", "1,0.25,0.5,24"]


def test_a_folder_without_a_log_has_no_rows(tmp_path):
    assert read_log(tmp_path) == []
    assert read_validation(tmp_path / "nowhere") == []


def test_a_row_is_on_the_disk_before_the_next(tmp_path):
    with TrainingLog(tmp_path) as log:
        for i in (1, 2, 3):
            log.step(step(i))
            assert [s.iteration for s in read_log(tmp_path)] == list(range(1, i + 1))
        log.validation(validation(3))
        assert read_validation(tmp_path) == [validation(3)]


def test_a_killed_process_leaves_all_it_noted(tmp_path, warm):
    code = (
        "import os, signal; from pathlib import Path\n"
        "from clipseg_cli.training.log import TrainingLog, Step, Validation\n"
        f"log = TrainingLog(Path({str(tmp_path)!r}))\n"
        "for i in range(1, 8): log.step(Step(i, 1.0, 0.1, 'guided', 1.0, 9.0))\n"
        "log.validation(Validation(7, 0.5, 0.5, 2))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert warm("-c", code).wait() == -signal.SIGKILL
    assert [s.iteration for s in read_log(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]
    assert len(read_validation(tmp_path)) == 1
    assert board(tmp_path)[0]["val/mIoU"] == [(7, 0.5)]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_half_a_last_line_is_dropped(tmp_path, cut):
    fill(tmp_path, 1, 6)
    whole = read_log(tmp_path)
    path = tmp_path / "log.csv"
    os.truncate(path, path.stat().st_size - cut)
    assert read_log(tmp_path) == whole[:5]
    with TrainingLog(tmp_path, done=5) as log:
        log.step(whole[5])
    assert read_log(tmp_path) == whole


@pytest.mark.parametrize("done", [1, 3, 6, 9])
def test_a_resumed_run_reads_as_one_that_was_never_interrupted(tmp_path, done):
    fill(tmp_path / "whole", 1, 9)
    fill(tmp_path / "cut", 1, 9)
    fill(tmp_path / "cut", done + 1, 9, done=done)
    for name in ("log.csv", "validation.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_tensorboard_shows_no_part_twice(tmp_path):
    fill(tmp_path, 1, 8)
    # Readers take files by their names, which begin with the second: no run is gone on with in the same one.
    (first,) = (tmp_path / "tensorboard").iterdir()
    first.rename(first.with_name(first.name.replace("tfevents.", "tfevents.0")))
    fill(tmp_path, 5, 10, done=4)
    shown, _ = board(tmp_path)
    assert [i for i, _ in shown["train/loss"]] == list(range(1, 11))
    assert [i for i, _ in shown["val/mIoU"]] == [2, 4, 6, 8, 10]


def test_tensorboard_gets_every_number_under_its_name(tmp_path):
    with TrainingLog(tmp_path) as log:
        log.step(Step(3, 0.5, 0.25, "guided", 0.75, 8.0, distill=2.0))
        log.validation(Validation(3, 0.125, 0.625, 4))
    assert board(tmp_path)[0] == {
        "train/loss": [(3, 0.5)],
        "train/learning_rate": [(3, 0.25)],
        "train/labelled": [(3, 0.75)],
        "train/images_per_second": [(3, 8.0)],
        "train/distill": [(3, 2.0)],
        "val/mIoU": [(3, 0.125)],
        "val/pixel_accuracy": [(3, 0.625)],
    }


def test_beginning_anew_replaces_what_was_there(tmp_path):
    fill(tmp_path, 1, 6)
    with TrainingLog(tmp_path) as log:
        log.draw()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "tensorboard" / "other.txt").write_text("mine too")
    with TrainingLog(tmp_path) as log:
        log.step(step(1, loss=7.0))
        assert not (tmp_path / "curves.png").exists()
    assert read_log(tmp_path) == [step(1, loss=7.0)]
    assert read_validation(tmp_path) == []
    assert board(tmp_path)[0]["train/loss"] == [(1, 7.0)]
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "tensorboard" / "other.txt").exists()


@pytest.mark.parametrize("name", ["log.csv", "validation.csv"])
@pytest.mark.parametrize(
    "text",
    ["a,b\n1,2\n", "{head}\n1,x,0.1\n", "{head}\n\n", "{head}\n1\n", "{head}\n1,\x00\n", "{head},more\n"],
)
def test_a_file_that_somebody_changed_is_named_with_its_line(tmp_path, name, text):
    fill(tmp_path, 1, 4)
    path = tmp_path / name
    path.write_text(text.format(head=path.read_text().splitlines()[0]))
    before = path.read_bytes()
    with pytest.raises(RunError, match=name):
        TrainingLog(tmp_path, done=2)
    assert path.read_bytes() == before
    TrainingLog(tmp_path).close()  # a new beginning does not mind
    assert read_log(tmp_path) == read_validation(tmp_path) == []


def test_the_line_of_a_damaged_row_is_told(tmp_path):
    (tmp_path / "log.csv").write_text(f"{HEADER}\n1,0.5,0.1,guided,1.0,9.0,\n2,0.5,0.1,guided,much,9.0,\n")
    with pytest.raises(RunError, match=r"log\.csv:3: not a row of log\.csv"):
        read_log(tmp_path)


def test_a_log_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(RunError, match=r"cannot read .*log\.csv"):
        read_log(tmp_path)


def test_a_log_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        TrainingLog(tmp_path / "file" / "run")


@pytest.mark.usefixtures("drawn_charts")
@pytest.mark.parametrize("rows", [(0, 0), (1, 0), (10, 1)])
def test_curves_of_any_short_run(tmp_path, rows):
    with TrainingLog(tmp_path) as log:
        for i in range(1, rows[0] + 1):
            log.step(step(i))
        for i in range(1, rows[1] + 1):
            log.validation(validation(i))
        assert log.draw() == tmp_path / "curves.png"
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1200, 450)


def test_the_curves_are_given_what_was_noted(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("clipseg_cli.training.log.draw_curves", lambda *given: seen.append(given))
    fill(tmp_path, 1, 4)
    with TrainingLog(tmp_path, done=4) as log:
        log.draw()
    ((steps, scores, path),) = seen
    assert steps == [(s.iteration, s.loss, s.lr, s.stage) for s in read_log(tmp_path)] != []
    assert scores == [(v.iteration, v.miou) for v in read_validation(tmp_path)] != []
    assert path == tmp_path / "curves.png"


def test_sample_predictions_go_to_the_folder_and_to_tensorboard(tmp_path):
    labels = np.zeros((6, 8), np.int32)
    rows = [LabelRow("a", np.full((6, 8, 3), 90, np.uint8), (None, labels, labels + 1))]
    with TrainingLog(tmp_path) as log:
        path = log.sample_sheet(4, rows, CLASSES)
    assert path == tmp_path / "predictions.png"
    _, images = board(tmp_path)
    (event,) = images["val/predictions"]
    with Image.open(path) as image:
        assert (event.step, event.width, event.height) == (4, *image.size)


def test_closing_twice_is_fine_and_an_error_passes_through(tmp_path):
    with pytest.raises(KeyboardInterrupt), TrainingLog(tmp_path) as log:
        log.step(step(1))
        raise KeyboardInterrupt
    log.close()
    assert len(read_log(tmp_path)) == 1


def test_nothing_half_is_left_in_the_folder(tmp_path):
    fill(tmp_path, 1, 4)
    fill(tmp_path, 3, 4, done=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.csv", "tensorboard", "validation.csv"]
