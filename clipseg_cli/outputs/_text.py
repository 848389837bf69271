"""One line of text on an image or a chart, in the first font that has all of its characters."""

from __future__ import annotations

import unicodedata
from bisect import bisect
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

INK, FAINT, PAPER = "#1b1b1b", "#6b6b6b", "white"

_OWN = ""  # Pillow's font, which has Latin only
_PLOTS = Path(getattr(find_spec("matplotlib"), "origin", None) or "")  # found, since importing it takes long
_FONTS = (
    _OWN,
    str(_PLOTS.parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"),
    # Pillow looks for these in the system's folders.
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf"),
    *("wqy-microhei.ttc", "DroidSansFallbackFull.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc"),
    *("Arial Unicode.ttf", "msyh.ttc", "YuGothM.ttc", "malgun.ttf"),
    *("seguiemj.ttf", "seguisym.ttf", "NotoEmoji-Regular.ttf", "Symbola.ttf"),
)
_MISSING = "\U0010fffe"  # a noncharacter, which no font has


class Line(NamedTuple):
    """Words and the font that draws them."""

    text: str
    font: ImageFont.FreeTypeFont

    @classmethod
    def of(cls, text: str, size: int, width: int | None = None, fallback: str = "?") -> Line:
        """The drawable words of a text, cut with an ellipsis where they are wider than `width` pixels."""
        words, font = drawable(text, fallback, size)
        if width is not None and _length(words, font) > width:
            starts = [words[:n].rstrip() + "…" for n in range(len(words))]
            words = starts[max(0, bisect(starts, width, key=lambda start: round(font.getlength(start))) - 1)]
        return cls(words, font)

    @property
    def width(self) -> int:
        """In pixels."""
        return _length(self.text, self.font)

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int, fill: str) -> None:
        """`x` is the left end and `y` the middle of the capitals, which are about 0.72 of the size in all fonts."""
        draw.text((x, y + round(self.font.size * 0.36)), self.text, font=self.font, fill=fill, anchor="ls")

    def place(self, paper: NDArray[np.uint8], x: int, y: int, fill: str) -> None:
        """As `draw`, on paper [H, W, 3]; words that were drawn before are taken from there."""
        if self.text:
            letters, left, top = _letters(self.text, self.font, fill)
            place(letters, paper, x + left, y + round(self.font.size * 0.36) + top)


def place(patch: NDArray[np.uint8], paper: NDArray[np.uint8], x: int, y: int) -> None:
    """Put a patch [h, w, 3] on paper, its left upper corner at (x, y); what lies beside the paper is left out."""
    top, left = max(0, -y), max(0, -x)
    part = paper[y + top : max(0, y + patch.shape[0]), x + left : max(0, x + patch.shape[1])]
    part[:] = patch[top : top + part.shape[0], left : left + part.shape[1]]


@lru_cache(maxsize=8192)
def _length(text: str, font: ImageFont.FreeTypeFont) -> int:
    return round(font.getlength(text))


@lru_cache(maxsize=4096)
def _letters(text: str, font: ImageFont.FreeTypeFont, fill: str) -> tuple[NDArray[np.uint8], int, int]:
    """A text on paper, uint8 [h, w, 3], and where its left upper corner is from the left end of the base line."""
    left, top, right, bottom = (round(side) for side in font.getbbox(text, anchor="ls"))
    covers = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(covers).text((-left, -top), text, font=font, fill=255, anchor="ls")
    letters = Image.new("RGB", covers.size, PAPER)
    letters.paste(fill, (0, 0), covers)
    return np.array(letters), left, top


@lru_cache(maxsize=8192)
def drawable(text: str, fallback: str = "?", size: int = 16) -> tuple[str, ImageFont.FreeTypeFont]:
    """What can be drawn of a text, and the font that has every character of it.

    What is invisible is left out. Where no font has all, a symbol or emoji is spelled by its Unicode name, "(cat
    face)"; if letters are missing too it is `fallback`, since a row of boxes tells nothing.
    """
    seen = "".join(c for c in text if c.isspace() or not _is_invisible(c))
    plain = " ".join(seen.split())
    for words in (plain, "".join(map(_spelled, plain)), fallback):
        for name in _FONTS if words else ():
            if all(_has(name, c) for c in words) and (font := _font(name, size)):
                return words, font
    raise ValueError(f"'{fallback}' is not of Latin letters")


def _is_invisible(c: str) -> bool:
    """Controls, joiners, lone surrogates, variants of emoji."""
    return unicodedata.category(c)[0] == "C" or "\ufe00" <= c <= "\ufe0f"


def _spelled(c: str) -> str:
    if unicodedata.category(c)[0] != "S" or any(_has(name, c) for name in _FONTS[:2]):
        return c
    return f"({unicodedata.name(c, 'symbol').lower()})"


@lru_cache(maxsize=16384)
def _has(name: str, character: str) -> bool:
    """Pillow does not tell which characters a font has, but without shaping it draws all that are missing alike."""
    if (font := _font(name, 16, ImageFont.Layout.BASIC)) is None:
        return False
    mask, missing = font.getmask(character), font.getmask(_MISSING)
    return character == " " or mask.size != missing.size or bytes(mask) != bytes(missing)


@lru_cache(maxsize=256)
def _font(name: str, size: int, layout: ImageFont.Layout | None = None) -> ImageFont.FreeTypeFont | None:
    """A font by its file's name; None if it is not installed, or has only bitmaps of other sizes."""
    try:
        font = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    except OSError:
        return None
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("this Pillow was built without FreeType")
    return font if layout is None else font.font_variant(layout_engine=layout)
