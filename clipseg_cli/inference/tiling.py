"""How an image is cut for the network, and how what it says of the parts becomes one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipseg_cli.data.images import square_input
from clipseg_cli.ops.patches import square_patches
from clipseg_cli.ops.windows import Window, plan_windows, stitch, without_padding
from clipseg_cli.types import LogitMaps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clipseg_cli.inference.settings import Settings
    from clipseg_cli.types import Pyramid

Size = tuple[int, int]
Padding = tuple[int, int, int, int]


class SlidingWindows:
    """Overlapping windows with dense features, averaged where they overlap.

    Args:
        window, stride: pixels; window 0 is the whole image.
        cell: pixels in a cell of the stitched map: the patch, or 1 for the published order, in which each window is
            refined by itself, upsampled, and averaged pixel by pixel.
    """

    whole_windows = False

    def __init__(self, window: int, stride: int, cell: int) -> None:
        self.window, self.stride, self.cell = window, stride, cell
        self.refines_windows = cell == 1

    def windows(self, size: Size) -> tuple[Window, ...]:
        """Of an image at network size."""
        return tuple(plan_windows(size, self.window, self.stride))

    def crops(self, resized: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """None: the windows are cut where the network is."""
        del resized
        return None

    def merge(
        self, parts: Sequence[LogitMaps], windows: Sequence[Window], paddings: Sequence[Padding], size: Size
    ) -> LogitMaps:
        """Maps of an image of (H, W) pixels from those of its windows; or of several images, with [B] in front."""
        if parts[0].mass is not None:
            return self._weighed(parts, windows, paddings, size)
        maps = [part.maps[0] for part in parts]
        if self.cell == 1:
            for i, (window, padding) in enumerate(zip(windows, paddings, strict=True)):
                if any(padding):
                    maps[i] = without_padding(maps[i], window, padding)
            return LogitMaps((stitch(maps, windows, size),), probabilities=parts[0].probabilities)
        cells = [window.divided(self.cell) for window in windows]
        grid = (-(-size[0] // self.cell), -(-size[1] // self.cell))
        keys = [part.keys for part in parts if part.keys is not None]
        recalled = [part.memory for part in parts if part.memory is not None]
        return LogitMaps(
            (stitch(maps, cells, grid),),
            stitch(keys, cells, grid) if keys else None,
            stitch(recalled, cells, grid) if recalled else None,
        )

    def _weighed(
        self, parts: Sequence[LogitMaps], windows: Sequence[Window], paddings: Sequence[Padding], size: Size
    ) -> LogitMaps:
        """The same where cells count differently: sums of what they say, over sums of their mass."""
        summed = []
        for part in parts:
            assert part.mass is not None  # as of the first
            mass = part.mass[..., None, :, :]
            maps = torch.cat([part.maps[0] * mass, mass], dim=-3)
            summed.append(dataclasses.replace(part, maps=(maps,), mass=None))
        merged = self.merge(summed, windows, paddings, size)
        maps, mass = merged.maps[0].split([merged.maps[0].shape[-3] - 1, 1], dim=-3)
        return dataclasses.replace(merged, maps=(maps / mass,), mass=mass.squeeze(-3))


class MultiScaleCrops:
    """Squares of several sizes, each seen as an image of its own (CLIP-DIY).

    Args:
        pyramid: sizes and weights.
        side: native side of the network, in pixels.
        published: remainders are left out and grids are stretched over the image, wherever their crops stood.
    """

    refines_windows = False
    whole_windows = True
    """The network gives one feature for each of them, and not one for each patch."""

    def __init__(self, pyramid: Pyramid, side: int, *, published: bool) -> None:
        self.pyramid, self.side, self.published = pyramid, side, published

    def windows(self, size: Size) -> tuple[Window, ...]:
        """Of all scales, one after the other."""
        return tuple(window for scale in self._scales(size) for window in scale[0])

    def crops(self, resized: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """All of them at the native side of the network: [P, n, n, 3]."""
        windows = self.windows((resized.shape[0], resized.shape[1]))
        return np.stack([square_input(resized[window.slices], self.side) for window in windows])

    def merge(
        self, parts: Sequence[LogitMaps], windows: Sequence[Window], paddings: Sequence[Padding], size: Size
    ) -> LogitMaps:
        """Maps of an image, one of each scale, from those [Q, 1, 1] of its crops; or of several, with [B] in front."""
        del windows, paddings
        maps, centres, left = [], [], list(parts)
        scales = self._scales(size)
        for cut, grid in scales:
            own, left = left[: len(cut)], left[len(cut) :]
            joined = torch.stack([part.maps[0][..., 0, 0] for part in own], dim=-1)  # [..., Q, P]
            maps.append(joined.unflatten(-1, grid))
            rows = [(w.top + w.height / 2) / size[0] for w in cut[:: grid[1]]]
            columns = [(w.left + w.width / 2) / size[1] for w in cut[: grid[1]]]
            centres.append(None if self.published else (rows, columns))
        return LogitMaps(
            tuple(maps),
            weights=tuple(weight / len(scales) for weight in self.pyramid.weights),
            centres=tuple(centres),
            nearest=self.pyramid.nearest,
        )

    def _scales(self, size: Size) -> list[tuple[list[Window], Size]]:
        """The crops of each scale, and the grid (rows, columns) that they stand in."""
        found = []
        for part in self.pyramid.parts:
            side = max(1, round(part * min(size)))
            if self.published:
                found.append(square_patches(size, side, self.pyramid.stride))
                continue
            windows = plan_windows(size, side, max(1, side // self.pyramid.stride))
            rows = len({window.top for window in windows})
            found.append((windows, (rows, len(windows) // rows)))
        return found


Tiling = SlidingWindows | MultiScaleCrops


def plan_tiling(settings: Settings, pyramid: Pyramid | None, side: int) -> Tiling:
    """How images are cut.

    Args:
        settings: with window, stride and cell.
        pyramid: of a method that reads crops as whole images; None for windows.
        side: pixels, as the network takes whole images.
    """
    if pyramid is None:
        return SlidingWindows(settings.window, settings.stride, settings.cell)
    return MultiScaleCrops(pyramid, side, published=settings.protocol.square)
