"""Numbers and lists as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def percent(share: float) -> str:
    """A share in [0, 1] with one decimal, "<0.1%" where that would round to nothing."""
    return "<0.1%" if share < 0.0005 else f"{100 * share:.1f}%"


def listed(items: Iterable[object], most: int = 5) -> str:
    """As in "a, b and 3 more": the first few, and how many there are besides."""
    texts = [str(item) for item in items]
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more:,} more" if more > 0 else "")
