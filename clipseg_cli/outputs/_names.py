"""File names from class names, which may hold anything a person can type."""

from __future__ import annotations

import sys
import unicodedata

_MAX_BYTES = 60
# Windows opens a device for these, whatever follows the dot.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}


def safe_name(name: str) -> str:
    """A file name part that stays in its folder on every system; different names may give the same one.

    Letters, marks and digits of all scripts, '-' and '_' are kept, runs of anything else become one '_'.

    Returns:
        1 to 60 bytes of UTF-8 without a dot or a separator; "class" if nothing of the name is left.
    """
    kept = (c if _is_kept(c) else " " for c in unicodedata.normalize("NFC", name))
    # Where the locale is not UTF-8, some letters cannot stand in a file name.
    words = "".join(kept).encode(sys.getfilesystemencoding(), "replace").decode(sys.getfilesystemencoding())
    words = "_".join(words.replace("?", " ").split()).strip("_-")
    # Cutting bytes may cut a letter, which 'ignore' drops.
    short = words.encode()[:_MAX_BYTES].decode(errors="ignore").rstrip("_-")
    return f"{short}_" if short.lower() in _DEVICES else short or "class"


def _is_kept(character: str) -> bool:
    return character in "-_" or unicodedata.category(character)[0] in "LMN"
