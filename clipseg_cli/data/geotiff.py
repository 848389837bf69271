"""GeoTIFFs: images that say where on Earth their pixels lie (OGC 19-008r4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_TAGS = (33550, 33922, 34264, 34735)
"""Pixel scale, tie points, transformation, keys of the coordinate system."""


def place_notes(image: Image.Image) -> tuple[str, ...]:
    """What a user should be told of a GeoTIFF: a label PNG cannot say where it lies; nothing of any other image."""
    tags = getattr(image, "tag_v2", {})
    if image.format != "TIFF" or not any(tag in tags for tag in _TAGS):
        return ()
    return ("a GeoTIFF: its labels fit it pixel by pixel, and do not carry its place on Earth",)
