"""Numbers as people read them."""

from __future__ import annotations


def percent(share: float) -> str:
    """A share in [0, 1] with one decimal, "<0.1%" where that would round to nothing."""
    return "<0.1%" if share < 0.0005 else f"{100 * share:.1f}%"
