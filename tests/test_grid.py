"""The sheet of small pictures: every picture in its place, whatever its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from clipseg_cli.errors import OutputError
from clipseg_cli.outputs import _grid
from clipseg_cli.outputs._grid import draw_grid, thumbnail, write_corruption_grid

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

COLORS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200), (200, 0, 200)]


def solid(color: tuple[int, int, int], height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    return np.full((height, width, 3), color, np.uint8)


def box_of(sheet: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of where a colour is."""
    ys, xs = np.nonzero((np.asarray(sheet) == color).all(axis=2))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def test_rows_go_down_and_columns_go_right_without_touching() -> None:
    cells = [[solid(c) for c in COLORS[:3]], [solid(c) for c in COLORS[3:]]]
    sheet = draw_grid(cells, ["one", "two"], ["1", "2", "3"])
    boxes = [box_of(sheet, color) for color in COLORS]
    for left, top, right, bottom in boxes:
        assert (right - left, bottom - top) == (160, 120)
    for row in (boxes[:3], boxes[3:]):
        assert len({box[1] for box in row}) == 1
        assert row[0][2] < row[1][0] < row[1][2] < row[2][0]
    for above, below in zip(boxes[:3], boxes[3:], strict=True):
        assert above[0] == below[0]
        assert above[3] < below[1]


def test_a_row_is_as_high_as_its_highest_picture_and_others_stand_in_its_middle() -> None:
    sheet = draw_grid([[solid(COLORS[0], 300, 90), solid(COLORS[1], 10, 90)]], ["row"], ["a", "b"])
    tall, wide = box_of(sheet, COLORS[0]), box_of(sheet, COLORS[1])
    assert (tall[2] - tall[0], tall[3] - tall[1]) == (60, 200)
    assert abs((tall[1] + tall[3]) - (wide[1] + wide[3])) <= 1


def test_captions_stand_below_their_pictures() -> None:
    cells = [[solid(COLORS[0]), solid(COLORS[1])]]
    sheet = draw_grid(cells, ["row"], ["a", "b"], [["mIoU 41.2", None]])
    blank = draw_grid(cells, ["row"], ["a", "b"], [[None, None]])
    assert sheet.height == draw_grid(cells, ["row"], ["a", "b"]).height + _grid._CAPTION_ROW
    ys, xs = np.nonzero((np.asarray(sheet) != np.asarray(blank)).any(axis=2))
    left, _, right, bottom = box_of(sheet, COLORS[0])
    assert left <= xs.min()
    assert xs.max() < right
    assert bottom <= ys.min()


def test_names_are_drawn_at_the_side_and_the_top() -> None:
    def draw(row: str, column: str) -> NDArray[np.uint8]:
        return np.asarray(draw_grid([[solid(COLORS[0])]], [row], [column]))

    left, top, _, _ = box_of(Image.fromarray(draw("spatter", "1")), COLORS[0])
    ys, xs = np.nonzero((draw("spatter", "1") != draw("spatter", "2")).any(axis=2))
    assert ys.max() < top
    assert left <= xs.min()
    ys, xs = np.nonzero(
        (draw("spatter", "1") != 255).any(axis=2) & (np.arange(top + 120 + 16) >= top)[:, None]
    )
    assert xs.min() < left


def test_long_and_foreign_names_stay_in_their_place() -> None:
    cells = [[solid(COLORS[0]), solid(COLORS[1])]]
    plain = draw_grid(cells, ["x"], ["a", "b"])
    sheet = draw_grid(cells, ["云" * 5 + "x" * 200], ["y" * 300, "\u200d"], [["z" * 200, ""]])
    assert sheet.width <= plain.width + _grid._MAX_NAME
    assert box_of(sheet, COLORS[0])[2] < box_of(sheet, COLORS[1])[0]


@pytest.mark.parametrize(
    ("size", "small"), [((1, 1), (160, 160)), ((1, 500), (1, 160)), ((900, 1), (200, 1))]
)
def test_thumbnails_of_any_size(size: tuple[int, int], small: tuple[int, int]) -> None:
    assert thumbnail(solid(COLORS[0], *size)).shape == (*small, 3)


def test_a_thumbnail_is_shown_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (1200, 1600, 3)).astype(np.uint8)
    assert np.array_equal(thumbnail(thumbnail(pixels)), thumbnail(pixels))


def test_rows_may_be_short_and_a_sheet_empty() -> None:
    sheet = draw_grid(
        [[solid(COLORS[0])], [], [solid(COLORS[1]), solid(COLORS[2])]], ["a", "b", "c"], ["1", "2"]
    )
    assert box_of(sheet, COLORS[0])[0] == box_of(sheet, COLORS[1])[0]
    assert draw_grid([], [], []).size > (0, 0)


@pytest.mark.parametrize(("ending", "kind"), [(".png", "PNG"), (".jpg", "JPEG"), (".JPEG", "JPEG")])
def test_the_sheet_is_written_in_the_format_of_its_name(ending: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"sheet{ending}"
    rows = [("spatter", [solid(COLORS[0]), solid(COLORS[1])])]
    assert write_corruption_grid(rows, ["clean", "severity 1"], path, [[None, "mIoU 3.1"]]) == path
    with Image.open(path) as image:
        image.load()
        assert image.format == kind
        assert image.size == draw_grid([rows[0][1]], ["spatter"], ["clean", "severity 1"], [[None, "x"]]).size
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not a PNG or JPEG"):
        write_corruption_grid([], [], tmp_path / "sheet.pdf")
    assert not list(tmp_path.iterdir())
