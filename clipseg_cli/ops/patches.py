"""CLIP-DIY: an image classified patch by patch, at several scales (arXiv:2309.14289)."""

from __future__ import annotations

from clipseg_cli.ops.windows import Window


def square_patches(size: tuple[int, int], side: int, stride: int = 2) -> tuple[list[Window], tuple[int, int]]:
    """Patches as the published code cuts them: row by row, the remainder at the right and the bottom left out.

    Args:
        size: (H, W) of the image.
        side: of a patch, in pixels.
        stride: parts of a side by which patches follow each other: 2 overlaps them by half.

    Returns:
        The patches, and the grid (rows, columns) that they stand in; none where the image is smaller.

    Source: wysoczanska/clip-diy@f88932d, src/models/clip_diy.py, _tile_image.
    """
    step = max(1, side // stride)
    rows, columns = (max(0, (length - side) // step + 1) for length in size)
    found = [Window(r * step, c * step, side, side) for r in range(rows) for c in range(columns)]
    return found, (rows, columns)
