"""What charts share: a figure without pyplot, quiet axes, words in any script, and bytes that repeat."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from clipseg_cli.outputs._text import FAINT, PAPER, drawable
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DPI = 100
GRID = "#e8e8e8"


def new_figure(width: int, height: int) -> Figure:
    """An empty figure of so many pixels. pyplot would change the process's state, and is not safe in threads."""
    from matplotlib.figure import Figure

    return Figure((width / DPI, height / DPI), DPI, facecolor=PAPER)


def quiet(axes: Axes) -> None:
    """No ticks and a faint frame. Every colour is set, since a user's own style may be for dark paper."""
    axes.set_facecolor(PAPER)
    axes.tick_params(axis="both", which="both", length=0, labelcolor=FAINT)
    for spine in axes.spines.values():
        spine.set_color(GRID)


def set_words(artist: Text, words: str, fallback: str = "?") -> None:
    """Words as they are, without formulas in dollars, in a font that has all their characters."""
    shown, font = drawable(words, fallback)
    artist.set(text=shown, parse_math=False, usetex=False)
    if isinstance(font.path, str):  # Pillow's own is in no file, and matplotlib's has all that it has
        artist.get_fontproperties().set_file(font.path)


def write_chart(figure: Figure, path: Path, *, tight: bool = False) -> Path:
    """Write a PNG; equal figures make equal bytes.

    Args:
        figure: all of it is drawn, and nothing of any other.
        path: of the file.
        tight: the image grows to what lies outside the figure.

    Raises:
        OutputError: the file cannot be written.
    """
    return write_bytes(path, render_png(figure, tight=tight))


def render_png(figure: Figure, *, tight: bool = False) -> bytes:
    """The figure as PNG; see `write_chart`."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format="png",
        dpi=DPI,
        facecolor=PAPER,
        bbox_inches="tight" if tight else None,
        pad_inches=0.2,
        metadata={"Software": None},
        pil_kwargs={"compress_level": 3},
    )
    return buffer.getvalue()
