"""The confusion matrix as a picture: which classes are taken for which others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from clipseg_cli.outputs import _text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clipseg_cli.types import ClassList

# White to navy in steps of equal CIE Lab distance and falling lightness: lighter is always less, for colour-blind
# people and on grey paper too.
_RAMP = np.array(
    [
        (255, 255, 255),
        (203, 237, 247),
        (149, 216, 241),
        (90, 193, 235),
        (0, 164, 223),
        (0, 131, 200),
        (0, 98, 164),
        (33, 69, 123),
        (39, 46, 82),
    ]
)
_TICKS = (0, 1, 5, 10, 25, 50, 100)  # per cent
_PAPER, _INK, _FAINT, _GRID, _GROUP = "white", "#1b1b1b", "#6b6b6b", "#e4e4e4", "#8c8c8c"
_ABSENT, _RIGHT = (
    np.array((232, 232, 232), np.uint8),
    "#d55e00",
)  # Okabe & Ito's vermilion stands out on every blue

_MAX_SHOWN = 300
"""More classes make a picture that no viewer opens; those with the most labelled pixels are shown."""

_SMALLEST, _LARGEST, _WISHED = 14, 112, 1080  # pixels: a cell, a cell, the whole matrix
_NUMBERS = 25  # a cell that holds a number
_DECIMALS = 44  # and one with a decimal
_WHITE_FROM = 0.28  # share from which on white is read more easily; WCAG would wait longer, the eye does not


def draw_confusion(confusion: NDArray[np.int64], classes: ClassList, title: str) -> Image.Image:
    """Rows are the truth and sum to 100 %, columns are the prediction; the IoU of each class is on the right.

    Args:
        confusion: [C, C + 1] pixels, row = truth, last column = predicted as no class; it gets a column only
            if it has a pixel.
        classes: names of the C classes, at least one.
        title: one line, cut where it is too long.
    """
    import torch  # not for `--help`

    from clipseg_cli.ops.metrics import score

    iou = score(torch.tensor(confusion)).iou.numpy()
    table = _Table.of(confusion, iou, classes)
    layout = _Layout.of(table, title)
    image = Image.new("RGB", (layout.width, layout.height), _PAPER)
    draw = ImageDraw.Draw(image)
    _draw_head(image, draw, table, layout, title)
    image.paste(_cells(table.shares, layout.cell), (layout.left, layout.top))
    _draw_lines(draw, table, layout)
    _draw_numbers(draw, table.shares, layout)
    _draw_names(image, draw, table, layout)
    return image


@dataclass(frozen=True)
class _Table:
    """What is shown.

    Attributes:
        shares: [R, K] of each row in [0, 1]; NaN in the rows of classes that nobody labelled.
        rows, columns: [R] and [K] names; the first R columns are the classes of the rows.
        iou: [R] as printed.
        total: number of classes, of which R are shown.
    """

    shares: NDArray[np.float64]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    iou: tuple[str, ...]
    total: int

    @classmethod
    def of(cls, confusion: NDArray[np.int64], iou: NDArray[np.float64], classes: ClassList) -> _Table:
        total = len(classes)
        labelled = confusion.sum(axis=1)
        shown = np.sort(np.argsort(-labelled, kind="stable")[:_MAX_SHOWN])
        names = [_text.drawable(classes.names[i], f"class {i}") for i in shown]
        columns, extra = [confusion[np.ix_(shown, shown)]], []
        others = np.setdiff1d(np.arange(total), shown)
        for name, ids in (("other classes", others), ("no class", np.array([total]))):
            pixels = confusion[np.ix_(shown, ids)].sum(axis=1, keepdims=True)
            if pixels.any():
                columns.append(pixels)
                extra.append(name)
        with np.errstate(invalid="ignore"):
            shares = np.concatenate(columns, axis=1) / labelled[shown, None]
        printed = ("–" if np.isnan(value) else f"{100 * value:.1f}" for value in iou[shown])
        return cls(shares, tuple(names), (*names, *extra), tuple(printed), total)


@dataclass(frozen=True)
class _Layout:
    """Measures in pixels.

    Attributes:
        cell: side of a cell.
        size, head: of the letters of the names and of the head.
        names: longest name.
        upright: column names fit over their columns and need not be turned.
        above: height of the names over the matrix; the same below it if `below`.
        below: the names of the columns are repeated under a matrix that is too tall to see at once.
        left, top, right, bottom: edges of the matrix.
        width, height: of the picture.
    """

    cell: int
    size: int
    head: int
    names: int
    upright: bool
    above: int
    below: bool
    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int

    @classmethod
    def of(cls, table: _Table, title: str) -> _Layout:
        rows, columns = table.shares.shape
        cell = min(_LARGEST, max(_SMALLEST, _WISHED // max(rows, 4)))
        size = min(18, cell - 1)
        names = min(16 * size, max(_text.text_width(name, size) for name in table.columns))
        upright = names + size // 2 <= cell
        below = cell < _NUMBERS
        head = max(16, columns * cell // 100)
        pad, gap = head + 8, size // 2
        above = (size if upright else names) + 2 * gap
        left, top = pad + names + gap, pad + round(6.4 * head) + above
        right, bottom = left + columns * cell, top + rows * cell
        beside = gap + max(_text.text_width("100.0", size), _text.text_width("IoU %", size))
        least = min(_text.text_width(title, round(1.4 * head)), 60 * head)  # of the title that is always read
        width = max(right + beside, pad + least, pad + 40 * head) + pad
        height = bottom + (above if below else 0) + pad
        return cls(cell, size, head, names, upright, above, below, left, top, right, bottom, width, height)


def _cells(shares: NDArray[np.float64], cell: int) -> Image.Image:
    colors = np.where(np.isnan(shares)[..., None], _ABSENT, _colorize(np.nan_to_num(shares)))
    return Image.fromarray(colors.repeat(cell, axis=0).repeat(cell, axis=1))


def _colorize(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """RGB [..., 3] of shares in [0, 1]. The root keeps confusions of a few per cent visible."""
    level = np.sqrt(shares)
    stops = np.linspace(0, 1, len(_RAMP))
    channels = [np.interp(level, stops, _RAMP[:, c]) for c in range(3)]
    return np.asarray(np.stack(channels, axis=-1).round(), np.uint8)


def _draw_head(
    image: Image.Image, draw: ImageDraw.ImageDraw, table: _Table, layout: _Layout, title: str
) -> None:
    """Title, what is seen, and the scale."""
    head, pad = layout.head, layout.head + 8
    large = round(1.4 * head)
    text = _text.ellipsize(_text.drawable(title, "confusion matrix"), large, layout.width - 2 * pad)
    _text.draw_text(draw, pad, pad + large // 2, text, large, _INK)
    said = "rows: truth, columns: prediction, in % of the pixels with that label"
    if len(table.rows) < table.total:
        said = f"the {len(table.rows)} most frequent of {table.total} classes; {said}"
    _text.draw_text(draw, pad, pad + round(2.3 * head), said, head, _FAINT)

    x, y, width = pad, pad + round(3.4 * head), 18 * head
    ramp = _colorize(np.linspace(0, 1, width) ** 2)[None]  # even colours: `_colorize` takes the root again
    image.paste(Image.fromarray(ramp.repeat(head, axis=0)), (x, y))
    draw.rectangle((x - 1, y - 1, x + width, y + head), outline=_GROUP)
    for tick in _TICKS:
        at, text = x + round(width * (tick / 100) ** 0.5), f"{tick}%" if tick == 100 else str(tick)
        draw.line((at, y + head, at, y + head + head // 4), fill=_GROUP)
        left = at - _text.text_width(str(tick), head) // 2
        _text.draw_text(draw, left, y + round(1.9 * head), text, head, _FAINT)
    x += width + 3 * head
    for words, fill, outline in (
        ("correct", None, _RIGHT),
        ("no pixel has this label", tuple(_ABSENT.tolist()), _GROUP),
    ):
        if fill is not None and not np.isnan(table.shares).any():
            continue
        draw.rectangle((x, y, x + head, y + head), fill=fill, outline=outline, width=max(1, head // 8))
        _text.draw_text(draw, x + round(1.5 * head), y + head // 2, words, head, _FAINT)
        x += 3 * head + _text.text_width(words, head)


def _draw_lines(draw: ImageDraw.ImageDraw, table: _Table, layout: _Layout) -> None:
    """Thin lines between cells, thicker ones every ten classes of many, and a frame on the diagonal."""
    rows, columns = table.shares.shape
    cell, left, top, right, bottom = layout.cell, layout.left, layout.top, layout.right, layout.bottom
    for strong in (False, True):
        color = _GROUP if strong else _GRID
        for i in range(columns + 1):
            edge = i in (0, rows, columns) or (i % 10 == 0 and rows > 30)
            if edge == strong:
                draw.line((left + i * cell, top, left + i * cell, bottom), fill=color)
                if i <= rows:
                    draw.line((left, top + i * cell, right, top + i * cell), fill=color)
    for i in range(rows):
        x, y = left + i * cell, top + i * cell
        draw.rectangle((x, y, x + cell, y + cell), outline=_RIGHT, width=1 + cell // 40)


def _draw_numbers(draw: ImageDraw.ImageDraw, shares: NDArray[np.float64], layout: _Layout) -> None:
    """Per cent in the cells, where they are large enough; none where it would round to nothing."""
    cell = layout.cell
    if cell < _NUMBERS:
        return
    decimals = 1 if cell >= _DECIMALS else 0
    size = min(20, round((0.33 if decimals else 0.42) * cell))
    for row, column in np.argwhere(np.nan_to_num(shares) >= 0.5 * 10.0 ** -(2 + decimals)).tolist():
        share = shares[row, column]
        text = f"{100 * share:.{decimals}f}"
        x = layout.left + column * cell + (cell - _text.text_width(text, size)) // 2
        y = layout.top + row * cell + cell // 2
        _text.draw_text(draw, x + 1, y, text, size, "white" if share > _WHITE_FROM else _INK)


def _draw_names(image: Image.Image, draw: ImageDraw.ImageDraw, table: _Table, layout: _Layout) -> None:
    """Names on both axes, and the IoU on the right."""
    cell, size, gap = layout.cell, layout.size, layout.size // 2
    absent = np.isnan(table.shares[:, 0]).tolist()
    inks = [_FAINT if gone else _INK for gone in absent] + [_FAINT] * len(table.columns)
    names = [_text.ellipsize(name, size, layout.names) for name in table.columns]
    widths = [_text.text_width(name, size) for name in names]
    for i, value in enumerate(table.iou):
        y = layout.top + i * cell + cell // 2
        _text.draw_text(draw, layout.left - gap - widths[i], y, names[i], size, inks[i])
        end = layout.right + gap + _text.text_width("100.0", size)
        _text.draw_text(draw, end - _text.text_width(value, size), y, value, size, inks[i])
    _text.draw_text(draw, layout.right + gap, layout.top - gap - size // 2, "IoU %", size, _FAINT)
    if layout.upright:
        for i, (name, width) in enumerate(zip(names, widths, strict=True)):
            x = layout.left + i * cell + (cell - width) // 2
            _text.draw_text(draw, x, layout.top - gap - size // 2, name, size, inks[i])
        return
    starts = [0] * len(names)
    image.paste(_turned(names, starts, inks, layout), (layout.left, layout.top - gap - layout.names))
    if layout.below:
        starts = [layout.names - width for width in widths]
        image.paste(_turned(names, starts, inks, layout), (layout.left, layout.bottom + gap))


def _turned(names: Sequence[str], starts: Sequence[int], inks: Sequence[str], layout: _Layout) -> Image.Image:
    """Names that are read from below to above, one for each column; `starts` is where, from below."""
    strip = Image.new("RGB", (layout.names, len(names) * layout.cell), _PAPER)
    draw = ImageDraw.Draw(strip)
    for i, name in enumerate(names):
        y = i * layout.cell + layout.cell // 2
        _text.draw_text(draw, starts[i], y, name, layout.size, inks[i])
    return strip.transpose(Image.Transpose.ROTATE_90)
