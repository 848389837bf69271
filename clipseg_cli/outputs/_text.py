"""Text on pictures in whatever script a class is named: each character in the first font that has it."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

from PIL import ImageFont

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import ImageDraw

# Looked for only when Pillow's own font (Latin) lacks a character; Pillow searches the system's folders.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
    "seguiemj.ttf",
    "seguisym.ttf",
    "NotoEmoji-Regular.ttf",
    "Symbola.ttf",
)
_MISSING = "\U0010fffe"  # a noncharacter, which no font has


def drawable(text: str, fallback: str) -> str:
    """`text` with only characters that some font here can draw.

    A symbol or emoji without a font is spelled out by its Unicode name, "(cat face)"; if letters are missing,
    `fallback` is returned, since a row of boxes tells nothing.
    """
    parts = []
    for c in text:
        category = unicodedata.category(c)
        if (
            category[0] == "C" or "\ufe00" <= c <= "\ufe0f"
        ):  # controls, joiners, lone surrogates, emoji variants
            continue
        if _font_for(c, 16) is not None:
            parts.append(c)
        elif category[0] == "S":
            parts.append(f"({unicodedata.name(c, 'symbol').lower()})")
        else:
            return fallback
    return "".join(parts).strip() or fallback


def text_width(text: str, size: int) -> int:
    """Pixels from the first to the last character of one line."""
    return round(sum(font.getlength(part) for part, font in _runs(text, size)))


def ellipsize(text: str, size: int, width: int) -> str:
    """`text`, cut with an ellipsis if it is wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)  # the longest start that fits is in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        fits = text_width(text[:middle].rstrip() + "…", size) <= width
        low, high = (middle, high) if fits else (low, middle)
    return text[:low].rstrip() + "…"


def draw_text(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, size: int, fill: str) -> None:
    """One line of text, `x` its left end and `y` the middle of its capitals."""
    position = float(x)
    baseline = y + round(size * 0.36)  # capitals are about 0.72 of the size in all these fonts
    for part, font in _runs(text, size):
        draw.text((position, baseline), part, font=font, fill=fill, anchor="ls")
        position += font.getlength(part)


def _runs(text: str, size: int) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
    fonts = ((c, _font_for(c, size) or _fonts(size)[0]) for c in text)
    for _, group in groupby(fonts, key=lambda item: id(item[1])):
        run = list(group)
        yield "".join(c for c, _ in run), run[0][1]


@lru_cache(maxsize=16384)
def _font_for(character: str, size: int) -> ImageFont.FreeTypeFont | None:
    own = _fonts(size)[0]
    if character.isspace() or _has(own, character):
        return own
    return next((font for font in _fonts(size, system=True) if _has(font, character)), None)


@lru_cache(maxsize=64)
def _fonts(size: int, system: bool = False) -> tuple[ImageFont.FreeTypeFont, ...]:
    if system:
        return tuple(font for name in _SYSTEM_FONTS if (font := _system_font(name, size)) is not None)
    own = ImageFont.load_default(size)
    if not isinstance(own, ImageFont.FreeTypeFont):
        raise TypeError("this Pillow was built without FreeType")
    return (own,)


def _system_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:  # not installed, or a bitmap font without this size
        return None


def _has(font: ImageFont.FreeTypeFont, character: str) -> bool:
    # Pillow does not tell which characters a font has, but draws all it lacks alike.
    mask, missing = font.getmask(character), font.getmask(_MISSING)
    return mask.size != missing.size or bytes(mask) != bytes(missing)
