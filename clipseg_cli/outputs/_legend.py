"""The legend beside a picture of labels: colour, name and share of each class, the largest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from clipseg_cli.outputs import _text
from clipseg_cli.outputs._colors import hex_color
from clipseg_cli.utils.numbers import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from clipseg_cli.types import ClassShare

PAPER, INK, FAINT = "white", "#1b1b1b", "#6b6b6b"
_MAX_ENTRIES = 24


@dataclass(frozen=True)
class Legend:
    """Entries of a legend and the measures, in pixels, of one of them.

    Attributes:
        entries: (colour or None, name, share) from the largest share down.
        size: of the letters.
        pad: around the panel.
        row, column: height and width of one entry with the space after it.
        name: width of the names.
    """

    entries: tuple[tuple[str | None, str, str], ...]
    size: int
    pad: int
    row: int
    column: int
    name: int

    @classmethod
    def of(cls, shares: Sequence[ClassShare], colors: NDArray[np.uint8], size: int) -> Legend:
        """The classes that have a pixel; `colors` uint8 [C, 3], `size` of the letters in pixels."""
        present = sorted((s for s in shares if s.pixels), key=lambda s: -s.pixels)
        named = present if len(present) <= _MAX_ENTRIES else present[: _MAX_ENTRIES - 1]
        entries: list[tuple[str | None, str, str]] = []
        for s in named:
            name = _text.ellipsize(_text.drawable(s.name, f"class {s.id}"), size, 14 * size)
            entries.append((hex_color(colors[s.id]), name, percent(s.share)))
        if rest := present[len(named) :]:
            entries.append((None, f"and {len(rest)} more", percent(sum(s.share for s in rest))))
        name_width = max(_text.text_width(name, size) for _, name, _ in entries)
        share_width = _text.text_width("100.0%", size)
        column = round(1.5 * size) + name_width + size + share_width + round(1.6 * size)
        return cls(tuple(entries), size, round(0.9 * size), round(1.6 * size), column, name_width)

    def draw(self, columns: int) -> Image.Image:
        """The panel with its entries in `columns`, read from top to bottom, or fewer if that fills them."""
        rows = -(-len(self.entries) // columns)
        columns = -(-len(self.entries) // rows)
        gap = round(1.6 * self.size)  # after each column but the last
        panel = Image.new(
            "RGB", (2 * self.pad + columns * self.column - gap, 2 * self.pad + rows * self.row), PAPER
        )
        draw = ImageDraw.Draw(panel)
        for i, (color, name, share) in enumerate(self.entries):
            x = self.pad + i // rows * self.column
            y = self.pad + i % rows * self.row + self.row // 2
            if color is not None:
                box = (x, y - self.size // 2, x + self.size, y + self.size - self.size // 2)
                draw.rounded_rectangle(box, radius=self.size // 5, fill=color)
            _text.draw_text(draw, x + round(1.5 * self.size), y, name, self.size, INK)
            end = x + self.column - gap
            _text.draw_text(draw, end - _text.text_width(share, self.size), y, share, self.size, FAINT)
        return panel
