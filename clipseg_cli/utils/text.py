"""Numbers, lists and names as people read them, and as files can hold them."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def percent(share: float) -> str:
    """A share in [0, 1] with one decimal, "<0.1%" where that would round to nothing."""
    return "<0.1%" if share < 0.0005 else f"{100 * share:.1f}%"


def format_seconds(seconds: float) -> str:
    """As in "0.8 s", "42 s", "3:07 min" or "2:03:00 h"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02} h"


def file_size(count: int) -> str:
    """Bytes as people read them: "2.4 MB", "140 GB"."""
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.1f} {units[0]}" if size < 9.95 and units[0] != "bytes" else f"{size:.0f} {units[0]}"


def listed(items: Iterable[object], most: int = 5) -> str:
    """As in "a, b and 3 more": the first few, and how many there are besides."""
    texts = [str(item) for item in items]
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more:,} more" if more > 0 else "")


def distinct_names(names: Sequence[str], forbidden: str = "", taken: tuple[str, ...] = ()) -> list[str]:
    """Names without characters that a format cannot hold; different ones stay different.

    Args:
        names: as people chose them.
        forbidden: characters as for `clean`.
        taken: names that none may have.
    """
    found = list(taken)
    for name in names:
        kept = clean(name, forbidden) or "_"
        number = 2
        own = kept
        while own in found:
            own, number = f"{kept}_{number}", number + 1
        found.append(own)
    return found[len(taken) :]


def clean(text: str, forbidden: str = "") -> str:
    """A text with "_" for each character that no text file and no XML holds, and for further forbidden ones."""
    return "".join(c if _is_text(c) and c not in forbidden else "_" for c in text)


def _is_text(character: str) -> bool:
    # Cc: control characters, Cs: lone surrogates; XML 1.0 lacks the last two of the first plane as well.
    return character == "\t" or (
        unicodedata.category(character) not in ("Cc", "Cs") and character not in "\ufffe\uffff"
    )
