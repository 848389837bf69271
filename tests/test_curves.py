"""The pictures of a training run: curves for whatever there is to draw, and sample predictions in their places."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from PIL import Image

from clipseg_cli.errors import OutputError, ShapeError
from clipseg_cli.outputs import _curves as curves
from clipseg_cli.outputs import class_colors, draw_curves, voc_palette, write_predictions
from clipseg_cli.training.log import Step, Validation
from clipseg_cli.types import ClassList

CLASSES = ClassList(("background", "cat", "dog"), (("sky",), ("cat",), ("dog",)), 0)
LOSS, SCORE, MARK = (0, 114, 178), (0, 158, 115), (213, 94, 0)
LEFT, RIGHT = np.s_[40:394, 66:572], np.s_[40:394, 677:1180]  # the insides of the panels


def steps(losses, switch=10**9):
    return [
        Step(i, float(loss), 0.01 / i, "guided" if i < switch else "self-training", 1.0, 9.0)
        for i, loss in enumerate(losses, start=1)
    ]


def scores(*miou, every=10):
    return [Validation(every * i, value, 0.5, 4) for i, value in enumerate(miou, start=1)]


def drawn(path, noted=(), scored=(), switch=None):
    draw_curves(noted, scored, path, switch=switch)
    with Image.open(path) as image:
        assert image.size == (1200, 450)
        return np.asarray(image.convert("RGB")).astype(int)


def near(pixels, color, distance=12):
    """Where a picture has about a colour; lines have soft edges, and points may be faint."""
    return np.abs(pixels - color).sum(axis=2) < distance


def rows_of(pixels, color):
    return np.nonzero(near(pixels, color).any(axis=1))[0]


@pytest.mark.parametrize(
    ("losses", "miou"),
    [
        ([], []),
        ([1.5], []),
        ([1.5], [0.25]),
        ([0.0] * 3, [0.0]),
        ([-1.0, 2.0, -3.0], [1.0, 1.0]),
        ([math.nan] * 5, [math.nan]),
        ([1.0, math.nan, math.inf, 0.5], [0.2, math.nan, 0.3]),
        ([10.0**-i for i in range(9)], [0.1, 0.9]),
        ([1e300, 1e-300, 0.0], [1e-9]),
        (list(range(1, 9000)), [0.5]),
    ],
)
def test_whatever_there_is_can_be_drawn(tmp_path, losses, miou):
    pixels = drawn(tmp_path / "x.png", steps(losses), scores(*miou), 2)
    blue = pixels[LEFT][..., 2] - pixels[LEFT][..., 0] > 60
    assert blue.any() == np.isfinite(losses).any()
    assert near(pixels[RIGHT], SCORE).any() == np.isfinite(miou).any()


@pytest.mark.parametrize("switch", [None, 50, 1])
def test_a_switch_out_of_reach_changes_nothing_else(tmp_path, switch):
    pixels = drawn(tmp_path / "x.png", steps([2.0, 1.0]), scores(0.1, 0.2, every=1), switch)
    assert near(pixels[LEFT], LOSS).any()
    assert near(pixels[RIGHT], SCORE).any()


def test_one_iteration_and_one_validation_are_seen(tmp_path):
    pixels = drawn(tmp_path / "x.png", steps([1.5]), scores(0.25, every=1))
    assert near(pixels[LEFT], LOSS, 60).sum() >= 9
    assert near(pixels[RIGHT], SCORE).sum() > 50


def test_a_loss_that_falls_goes_down_and_a_score_that_rises_goes_up(tmp_path):
    pixels = drawn(tmp_path / "x.png", steps(np.linspace(3, 1, 50)), scores(0.1, 0.2, 0.3, 0.4, 0.5))
    for panel, color, sign in ((LEFT, LOSS, 1), (RIGHT, SCORE, -1)):
        ys, xs = np.nonzero(near(pixels[panel], color))
        assert sign * (ys[xs > np.median(xs)].mean() - ys[xs < np.median(xs)].mean()) > 50


def test_a_loss_over_decades_has_a_logarithmic_axis(tmp_path):
    """There it falls evenly, whereas on a plain axis the second half of it would lie on the floor."""
    pixels = drawn(tmp_path / "x.png", steps(np.geomspace(100, 0.01, 200)))
    ys, xs = np.nonzero(near(pixels[LEFT], LOSS))
    middle = ys[np.abs(xs - (xs.min() + xs.max()) / 2) < 3].mean()
    assert abs(middle - (ys.min() + ys.max()) / 2) < 10


def test_the_running_mean_does_not_look_across_the_stages(tmp_path):
    """Loss 1, then loss 3: no iteration has one between, and so has no line."""
    path = tmp_path / "x.png"
    losses = [1.0] * 200 + [3.0] * 200
    blue = rows_of(drawn(path, steps(losses, switch=201))[LEFT], LOSS)
    assert np.diff(blue).max() > 200
    assert np.diff(rows_of(drawn(path, steps(losses))[LEFT], LOSS)).max() < 5


def test_the_switch_is_a_line_in_both_panels_with_the_name_of_the_stage(tmp_path):
    noted, scored = steps([2.0] * 100, switch=50), scores(0.2, 0.3)
    plain = drawn(tmp_path / "x.png", noted, scored)
    marked = drawn(tmp_path / "y.png", noted, scored, switch=50)
    for panel in (LEFT, RIGHT):
        changed = (plain[panel] != marked[panel]).any(axis=2)
        columns = np.nonzero(changed.sum(axis=0) > 80)[0]
        width = changed.shape[1]
        assert abs(columns.mean() / width - 49.5 / 103) < 0.01
        assert np.ptp(columns) <= 3
    changed = (plain[LEFT] != marked[LEFT]).any(axis=2)
    assert changed[-40:, 250:340].sum() > 100  # words to its right


def test_the_best_score_is_the_large_dot(tmp_path):
    pixels = drawn(tmp_path / "x.png", [], scores(0.2, 0.5, 0.3))
    green = near(pixels[RIGHT], SCORE)
    best = [green[:, x - 8 : x + 9].sum() for x in (164, 328, 489)]
    assert best[1] > 1.5 * max(best[0], best[2])


def test_losses_that_are_no_numbers_are_counted(tmp_path):
    clean = drawn(tmp_path / "x.png", steps([1.0, 2.0, 3.0]))
    broken = drawn(tmp_path / "y.png", steps([1.0, math.nan, 3.0]))
    assert near(broken[LEFT], MARK).any()
    assert not near(clean[LEFT], MARK).any()


def test_equal_input_makes_equal_bytes_without_a_date(tmp_path):
    for name in ("x.png", "y.png"):
        drawn(tmp_path / name, steps([3.0, 2.0, 1.0], switch=2), scores(0.1, 0.2), 2)
    data = (tmp_path / "x.png").read_bytes()
    assert data == (tmp_path / "y.png").read_bytes()
    with Image.open(tmp_path / "x.png") as image:
        assert set(image.info) <= {"dpi"}


def test_a_style_for_dark_paper_changes_nothing_and_is_left_alone(tmp_path, monkeypatch):
    import matplotlib as mpl

    def settings():
        return {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}

    drawn(tmp_path / "x.png", steps([3.0, 2.0]), scores(0.1))
    names = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.titlecolor", "grid.color")
    dark = dict.fromkeys(names, "white")
    dark |= dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "black")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whoever imports it fails
    with mpl.rc_context(dark):
        before = settings()
        drawn(tmp_path / "y.png", steps([3.0, 2.0]), scores(0.1))
        assert settings() == before
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()


def test_the_mean_is_of_finite_neighbours():
    values = np.array([1.0, 2.0, 6.0, np.nan, 4.0, np.inf, np.nan, np.nan, np.nan])
    mean = curves._running_mean(values, 1)
    assert mean[:6] == pytest.approx([1.0, 3.0, 4.0, 5.0, 4.0, 4.0])
    assert np.isnan(mean[6:]).all()
    line = np.arange(100.0)
    assert curves._running_mean(line, 2)[2:-2] == pytest.approx(line[2:-2])


def test_curves_that_cannot_be_written_are_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        draw_curves([], [], tmp_path / "file" / "x.png", switch=None)


def sample(target=None, truth=None, prediction=1, size=(60, 80), name="name"):
    """A blue picture; a number stands for a map with one label."""
    maps = [None if v is None else np.full(size, v, np.int32) for v in (target, prediction, truth)]
    return (name, np.full((*size, 3), (10, 20, 250), np.uint8), *maps)


def sheet(path, rows, classes=CLASSES):
    assert write_predictions(rows, classes, path) == path
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def cells(found, count, height=120):
    """The pictures of the first row, from left to right."""
    blue = np.nonzero((found == (10, 20, 250)).all(axis=2))
    top, left = blue[0].min(), blue[1].min()
    return [found[top : top + height, left + 166 * i : left + 166 * i + 160] for i in range(count)]


def test_columns_are_image_taught_prediction_truth(tmp_path):
    found = sheet(tmp_path / "x.png", [sample(0, 1, 2)])
    palette = voc_palette()
    for cell, color in zip(cells(found, 4), [(10, 20, 250), *palette[[0, 2, 1]]], strict=True):
        assert (cell == color).all()


def test_a_column_without_labels_is_left_out(tmp_path):
    full = sheet(tmp_path / "x.png", [sample(0, 1)])
    for target, truth in ((0, None), (None, 1), (None, None)):
        found = sheet(tmp_path / "y.png", [sample(target, truth)])
        assert found.shape[1] == full.shape[1] - 166 * [target, truth].count(None)
        assert (cells(found, 2)[1] == voc_palette()[1 if target is None else 0]).all()


def test_what_one_row_lacks_stays_white(tmp_path):
    found = sheet(tmp_path / "x.png", [sample(None, 1), sample(0, None)])
    image, taught, prediction, truth = cells(found, 4)
    assert (taught == 255).all()
    assert (truth == voc_palette()[1]).all()
    assert (image != prediction).any()


@pytest.mark.parametrize("label", [-1, -7, 3, 255, 65535])
def test_no_label_is_striped(tmp_path, label):
    taught = cells(sheet(tmp_path / "x.png", [sample(label)]), 2)[1]
    assert {tuple(color) for color in taught.reshape(-1, 3).tolist()} == {(176, 176, 176), (255, 255, 255)}


def test_labels_keep_their_place(tmp_path):
    row = sample(prediction=1)
    row[3][:, 40:] = 2
    prediction = cells(sheet(tmp_path / "x.png", [row]), 2)[1]
    assert (prediction[:, :80] == voc_palette()[1]).all()
    assert (prediction[:, 80:] == voc_palette()[2]).all()


def test_the_legend_has_the_classes_that_occur_anywhere(tmp_path):
    """Swatches below the pictures: of the class that was only taught, of the one only predicted, not of the third."""
    found = sheet(tmp_path / "x.png", [sample(target=2, prediction=1)])
    below = found[48 + 120 + 6 :]
    palette = voc_palette()
    counts = [(below == palette[i]).all(axis=2).sum() for i in range(3)]
    assert min(counts[1], counts[2]) > 100
    assert counts[0] < 50  # black is that of no letter, INK is lighter
    assert (below == 176).all(axis=2).sum() < 50  # some are in the soft edges of letters


@pytest.mark.parametrize("total", [1, 21, 255, 256])
def test_any_number_of_classes(tmp_path, total):
    names = tuple(f"a rather long name of thing {i}" for i in range(total))
    row = sample(target=-1, prediction=total - 1)
    row[3][: len(row[3]) // 2] = np.arange(80) % total
    found = sheet(tmp_path / "x.png", [row], ClassList(names, tuple((n,) for n in names), None))
    color = voc_palette()[total - 1] if total <= 255 else class_colors(total)[-1]
    assert (cells(found, 3)[2][60:] == color).all()
    assert found.shape[0] < 900


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (500, 375), (33, 47)])
def test_any_size_and_no_picture_at_all(tmp_path, size):
    assert sheet(tmp_path / "x.png", [sample(0, 1, size=size), sample(1, size=size)]).any()
    assert sheet(tmp_path / "y.png", []).any()


def test_labels_of_another_size_are_refused(tmp_path):
    row = (*sample()[:3], np.zeros((8, 10), np.int32), None)
    with pytest.raises(ShapeError, match=r"name: labels of \(8, 10\) for a picture of \(60, 80\)"):
        write_predictions([row], CLASSES, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_nobody_s_arrays_change_and_equal_sheets_have_equal_bytes(tmp_path):
    row = sample(-1, 255)
    before = [None if part is None else np.copy(part) for part in row[1:]]
    sheet(tmp_path / "x.png", [row])
    sheet(tmp_path / "y.png", [row])
    assert all(np.array_equal(a, b) for a, b in zip(before, row[1:], strict=True))
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()
