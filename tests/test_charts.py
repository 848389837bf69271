"""Charts say what the numbers say: what is drawn is asked of the figure, not of its pixels."""

from __future__ import annotations

import itertools
import math
import sys
import threading

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from clipseg_cli.outputs import class_rows, draw_curves, write_scores
from clipseg_cli.outputs._chart import DPI, write_chart
from clipseg_cli.outputs._confusion import LARGEST, MOST, SMALLEST, confusion_figure
from clipseg_cli.outputs._curves import curves_figure
from clipseg_cli.types import ClassList

pytestmark = pytest.mark.usefixtures("drawn_charts")

# --- curves of a training run ------------------------------------------------------------------------------


def steps(losses, switch=10**9):
    stages = ("guided", "self-training")
    return [(i, float(loss), 0.01 / i, stages[i >= switch]) for i, loss in enumerate(losses, start=1)]


def scores(*miou):
    return [(10 * i, value) for i, value in enumerate(miou, start=1)]


def lines_of(axes, marker):
    """What is drawn with a marker, "" for lines alone; those across the whole panel are none."""
    found = [line.get_xydata() for line in axes.lines if line.get_marker() == marker]
    return [points for points in found if not (len(points) == 2 and points[:, 1].tolist() == [0, 1])]


def words_of(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


ODD = [1.0, math.nan, math.inf, -0.5]


@pytest.mark.parametrize(
    ("losses", "miou"),
    [
        ([], []),
        ([1.5], [0.25]),
        ([0.0] * 3, [0.0]),
        (ODD[1:3], ODD[1:2]),
        (ODD, ODD[:2]),
        ([1e300, 1e-300], [1e-9]),
    ],
)
def test_every_finite_number_is_in_its_panel(tmp_path, losses, miou):
    noted, scored = steps(losses), scores(*miou)
    loss, rate, score = curves_figure(noted, scored).axes
    titles = [axes.get_title("left") for axes in (loss, rate, score)]
    assert titles == ["loss", "learning rate", "mIoU on the validation images, %"]
    finite = [[i, value] for i, value, *_ in noted if math.isfinite(value)]
    dots = [points.tolist() for points in lines_of(loss, ".")]
    assert dots[:1] == ([finite] if finite else [])
    finite = [[i, 100 * value] for i, value in scored if math.isfinite(value)]
    assert [points.tolist() for points in lines_of(score, "o")[:1]] == ([finite] if finite else [])
    assert [line.get_ydata().tolist() for line in rate.lines] == ([[s[2] for s in noted]] if noted else [])
    draw_curves(noted, scored, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (1200, 450)


def test_what_is_missing_is_said():
    assert {"no iteration yet", "no validation yet"} <= set(words_of(curves_figure([], [])))
    assert {"no finite loss", "no score"} <= set(words_of(curves_figure(steps([math.nan]), scores(math.nan))))
    assert "1 of 3 are not finite" in words_of(curves_figure(steps([1.0, math.nan, 3.0]), []))
    assert not any("finite" in word for word in words_of(curves_figure(steps([1.0, 2.0]), [])))


def test_thousands_of_iterations_are_thinned_and_their_mean_is_not():
    loss = curves_figure(steps(range(1, 9001)), []).axes[0]
    ((dots,), (mean,)) = lines_of(loss, "."), lines_of(loss, "")
    assert (len(dots), len(mean)) == (3000, 9000)
    assert mean[1000:-1000] == pytest.approx(np.array(steps(range(1, 9001)))[1000:-1000, :2].astype(float))


def test_the_running_mean_does_not_look_across_the_stages():
    losses = [1.0] * 200 + [3.0] * 200
    two = lines_of(curves_figure(steps(losses, switch=201), []).axes[0], "")
    assert [points[:, 1].tolist() for points in two] == [[1.0] * 200, [3.0] * 200]
    (one,) = lines_of(curves_figure(steps(losses), []).axes[0], "")
    assert ((one[:, 1] > 1) & (one[:, 1] < 3)).sum() > 10


def test_a_change_of_stage_is_a_line_in_every_panel_with_the_new_name():
    figure = curves_figure(steps([2.0] * 100, switch=50), scores(0.2, 0.3))
    for axes in figure.axes:
        across = [list(line.get_xdata()) for line in axes.lines if list(line.get_ydata()) == [0, 1]]
        assert across == [[49.5, 49.5]]
    (name,) = [text for text in figure.axes[0].texts if text.get_text() == "self-training"]
    assert 49.5 < name.get_position()[0] < 60
    assert "self-training" not in words_of(curves_figure(steps([2.0] * 100), []))


def test_a_loss_over_decades_has_a_logarithmic_axis():
    for losses, scale in ((np.geomspace(100, 0.01, 200), "log"), (np.linspace(3, 1, 200), "linear")):
        assert curves_figure(steps(losses), []).axes[0].get_yscale() == scale
    assert curves_figure(steps(np.geomspace(100, 0.01, 200) - 1), []).axes[0].get_yscale() == "linear"


def test_the_best_score_is_the_large_dot_with_its_number():
    axes = curves_figure([], scores(0.2, 0.504, 0.3)).axes[2]
    sizes = {line.get_markersize(): line.get_xydata().tolist() for line in axes.lines}
    assert sizes[max(sizes)] == [[20, 50.4]]
    assert [text.get_text() for text in axes.texts] == ["50.4"]


# --- confusion matrix --------------------------------------------------------------------------------------

# a: 60 of 80 found; b: missed altogether; c: invented; d: nowhere.
TABLE = np.array([[60, 0, 15, 0, 5], [10, 0, 0, 0, 0], [0] * 5, [0] * 5])


def listed(*names):
    return ClassList(names, tuple((name,) for name in names), None)


def numbered(count):
    return listed(*(f"thing {i}" for i in range(count)))


def random_table(count, seed=0):
    pixels = (np.random.default_rng(seed).pareto(0.3, (count, count + 1)) % 1e6).astype(np.int64)
    return pixels + 5000 * np.eye(count, count + 1, dtype=np.int64)


def chart(table, classes, title="title"):
    return confusion_figure(table, [row["iou"] for row in class_rows(table, classes)], classes, title)


def names_on(labels):
    return [label.get_text() for label in labels]


def matrix_of(figure):
    rows, columns = len(figure.axes[0].get_yticks()), len(figure.axes[0].get_xticks())
    return figure.axes[0].collections[0].get_array().reshape(rows, columns)


def test_rows_are_per_cent_and_bars_are_iou():
    figure = chart(TABLE, listed("a", "b", "c", "d"))
    matrix, beside = figure.axes
    assert names_on(matrix.get_yticklabels()) == ["a", "b", "c", "d"]
    assert names_on(matrix.get_xticklabels()) == ["a", "b", "c", "d", "no class"]
    assert matrix_of(figure)[:2].tolist() == [[75, 0, 18.75, 0, 6.25], [100, 0, 0, 0, 0]]
    assert [bar.get_width() for bar in beside.patches] == pytest.approx([100 * 60 / 90, 0, 0, 0])
    assert names_on(beside.texts) == ["66.7", "0.0", "0.0", "–"]
    top, _, _, bottom = (bar.get_y() for bar in beside.patches)
    assert top < bottom and matrix.get_ylim() == beside.get_ylim() == (4, 0)  # the first class is at the top
    cells = {text.get_position(): text.get_text() for text in matrix.texts}
    assert cells == {(0.5, 0.5): "75.0", (2.5, 0.5): "18.8", (4.5, 0.5): "6.2", (0.5, 1.5): "100.0"}


def test_classes_that_nobody_labelled_are_grey_and_said():
    figure = chart(TABLE, numbered(4))
    assert matrix_of(figure).mask.all(axis=1).tolist() == [False, False, True, True]
    labels = figure.axes[0].get_yticklabels()
    assert labels[0].get_color() == labels[1].get_color() != labels[2].get_color() == labels[3].get_color()
    assert "grey" in figure.axes[0].get_xlabel()
    full = chart(random_table(4), numbered(4))
    assert "grey" not in full.axes[0].get_xlabel()
    assert not np.ma.is_masked(matrix_of(full))


def test_no_class_gets_a_column_only_if_it_has_pixels_and_nothing_at_all_can_be_drawn(tmp_path):
    assert matrix_of(chart(TABLE * [1, 1, 1, 1, 0], numbered(4))).shape == (4, 4)
    assert write_scores({}, np.zeros((3, 4), np.int64), numbered(3), tmp_path)[2].stat().st_size


def test_of_too_many_classes_the_most_frequent_are_shown():
    table = random_table(400)
    table[17] *= 1000
    figure = chart(table, numbered(400))
    names = names_on(figure.axes[0].get_xticklabels())[: MOST + 2]
    assert names[MOST:] == ["other classes", "no class"]
    order = [int(name.split()[1]) for name in names[:MOST]]
    assert order == sorted(order) and 17 in order
    assert table[order].sum(axis=1).min() >= np.delete(table, order, axis=0).sum(axis=1).max()
    assert np.allclose(matrix_of(figure).sum(axis=1), 100)
    assert "300 most frequent of 400" in figure.axes[0].get_xlabel()


@pytest.mark.parametrize("count", [1, 2, 21, 43, 60, 171])
def test_cells_hold_their_names_and_numbers(tmp_path, count):
    table = random_table(count)
    figure = chart(table, numbered(count))
    cell = round(figure.get_size_inches()[1] * DPI / count)
    assert SMALLEST <= cell <= LARGEST
    path = write_chart(figure, tmp_path / "x.png", tight=True)
    assert path.stat().st_size < 1_000_000
    with Image.open(path) as image:
        assert max(image.size) < 4000
    matrix = figure.axes[0]
    assert names_on(matrix.get_yticklabels()) == [f"thing {i}" for i in range(count)]
    # The size of a letter holds ascenders and descenders, of which neighbours share the room.
    assert all(label.get_fontsize() * DPI / 72 <= cell for label in matrix.get_yticklabels())
    boxes = [label.get_window_extent() for label in matrix.get_xticklabels()[: count + 1]]
    assert all(box.x1 <= after.x0 + 1 for box, after in itertools.pairwise(boxes))
    for text in matrix.texts:
        assert text.get_window_extent().width < cell
    assert bool(matrix.texts) == (len(figure.axes) == 2) == (count <= 43)  # else there is a scale


def test_names_of_any_kind_are_words_and_no_formulas(tmp_path):
    """Warnings are errors here, also those of matplotlib about glyphs that no font has."""
    odd = (
        "$5 bill_{x$",
        "\U0010fffe",
        "\u0378",
        "κουτί",
        "🦄\ufe0f",
        "a\nb",
        "x" * 300,
        "\udcff",
        "<b>&amp;</b>",
    )
    figure = chart(random_table(9), listed(*odd), "$\\frac{ 猫")
    shown = names_on(figure.axes[0].get_yticklabels())
    assert shown[:4] == ["$5 bill_{x$", "class 1", "class 2", "κουτί"]
    assert shown[4] in ("🦄", "(unicorn face)")
    assert shown[5:] == ["a b", "x" * 27 + "…", "class 7", "<b>&amp;</b>"]
    write_chart(figure, tmp_path / "x.png", tight=True)
    labels = figure.axes[0].get_yticklabels()
    assert "DejaVu" in labels[3].get_fontproperties().get_name()
    assert figure.axes[0].get_title("left") in ("$\\frac{ 猫", "confusion matrix")


def test_a_long_title_is_broken_into_lines():
    title = chart(TABLE, numbered(4), "a long title " * 15).axes[0].get_title("left")
    assert title.replace("\n", " ") == ("a long title " * 15).strip()
    assert max(map(len, title.splitlines())) <= 60
    assert len(chart(TABLE, numbered(4), "word " * 999).axes[0].get_title("left")) < 300


def test_numbers_can_be_read_on_their_cells():
    """WCAG contrast of large text: 3 to 1. The darker a cell, the more pixels it has."""

    def luminance(rgb):
        v = np.asarray(rgb)[..., :3]
        return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    table = np.zeros((20, 21), np.int64)
    table[:, 0], table[:, -1] = np.arange(5, 101, 5), np.arange(95, -1, -5)
    matrix = chart(table, numbered(20)).axes[0]
    papers = [luminance(matrix.collections[0].to_rgba(percent)) for percent in range(5, 101, 5)]
    assert (np.diff(papers) < 0).all()
    numbers = [text for text in matrix.texts if text.get_position()[0] == 0.5]
    assert names_on(numbers) == [f"{percent}.0" for percent in range(5, 101, 5)]
    for number, paper in zip(numbers, papers, strict=True):
        light, dark = sorted([paper, luminance(to_rgb(number.get_color()))], reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3, number


# --- both --------------------------------------------------------------------------------------------------


def both(folder):
    folder.mkdir()
    draw_curves(steps([3.0, 2.0, 1.0], switch=2), scores(0.1, 0.2), folder / "curves.png")
    write_chart(chart(TABLE, numbered(4)), folder / "confusion.png", tight=True)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_equal_data_make_equal_bytes_without_a_date_in_any_thread(tmp_path):
    first, found = both(tmp_path / "x"), {}
    threads = [
        threading.Thread(target=lambda i=i: found.setdefault(i, both(tmp_path / str(i)))) for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(3)] == [first] * 3
    for path in (tmp_path / "x").iterdir():
        with Image.open(path) as image:
            assert set(image.info) <= {"dpi"}


def test_a_style_for_dark_paper_changes_nothing_and_is_left_alone(tmp_path, monkeypatch):
    def settings():
        return {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}

    light = both(tmp_path / "x")
    names = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.titlecolor", "grid.color")
    dark = dict.fromkeys(names, "white")
    dark |= dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "black")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whoever imports it fails
    with mpl.rc_context(dark):
        before = settings()
        assert both(tmp_path / "y") == light
        assert settings() == before
