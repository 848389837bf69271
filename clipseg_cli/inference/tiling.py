"""How a picture is cut for the network, and how what it says of the pieces becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipseg_cli.data.images import square_input
from clipseg_cli.inference.logit_maps import ScoreMaps
from clipseg_cli.ops.patches import square_patches
from clipseg_cli.ops.presence import absent_by
from clipseg_cli.ops.refine import absent_classes, remove_classes, smooth_by_keys
from clipseg_cli.ops.windows import Window, plan_windows, stitch, without_overhang

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.inference.settings import Settings
    from clipseg_cli.types import ClassList, Pyramid

Size = tuple[int, int]


@dataclass(frozen=True)
class WindowMaps:
    """What the network says of one piece of a picture.

    Attributes:
        logits: [Q, h, w] scores.
        keys: [K, h, w] while they are needed.
        overhang: as in `DenseFeatures`.
        presence: [C] evidence that the classes are in it, by `ops.presence`; None unless asked for.
    """

    logits: Tensor
    keys: Tensor | None
    overhang: tuple[int, int, int, int] = (0, 0, 0, 0)
    presence: Tensor | None = None


class Refiner:
    """Presence filter and prompt denoising, then key smoothing.

    Args:
        settings: with their thresholds.
        classes: the words.
    """

    def __init__(self, settings: Settings, classes: ClassList) -> None:
        self.settings, self.classes = settings, classes

    def __call__(self, logits: Tensor, keys: Tensor | None, missing: Tensor | None) -> Tensor:
        """Cosines [Q, h, w] -> the same without `missing` classes, refined; probabilities if smoothed."""
        logits = self.without(logits, missing)
        s, logits = self.settings, self.without(logits, self.absent([logits]))
        if s.key_smoothing > 0 and keys is not None:
            return smooth_by_keys(
                logits, keys, s.key_smoothing, scale=s.refine_scale, norm=s.protocol.key_norm
            )[0]
        return logits

    def missing(self, parts: Sequence[WindowMaps]) -> Tensor | None:
        """Which classes [C] the presence filter removes: those that no piece of a picture speaks for."""
        evidence = [part.presence for part in parts if part.presence is not None]
        return absent_by(torch.stack(evidence), self.classes.background) if evidence else None

    def absent(self, maps: Sequence[Tensor]) -> Tensor | None:
        """Which classes [C] prompt denoising removes: those that are sure in none of the maps of a picture."""
        s = self.settings
        if s.prompt_denoising <= 0:
            return None
        flat = torch.cat([one.flatten(1) for one in maps], dim=1)[:, :, None]  # [Q, n, 1]
        return absent_classes(
            flat,
            s.prompt_denoising,
            scale=s.refine_scale,
            query_to_class=self.classes.query_to_class,
            keep=self.classes.background,
        )

    def without(self, logits: Tensor, absent: Tensor | None) -> Tensor:
        """The same scores with removed classes far below all others."""
        return logits if absent is None else remove_classes(logits, absent, self.classes.query_to_class)


class Sliding:
    """Overlapping windows, read densely, averaged where they overlap."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def windows(self, size: Size) -> tuple[Window, ...]:
        """Of a picture at network size."""
        return tuple(plan_windows(size, self.settings.window, self.settings.stride))

    def pieces(self, resized: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """None: the windows are cut where the network is."""
        del resized
        return None

    def join(
        self,
        parts: Sequence[WindowMaps],
        windows: Sequence[Window],
        size: Size,
        refiner: Refiner,
    ) -> ScoreMaps:
        """Refined scores of a picture of (H, W) pixels from those of its windows."""
        cell, missing = self.settings.cell, refiner.missing(parts)
        if cell == 1:
            # The published order: each window is refined by itself, upsampled, averaged pixel by pixel.
            maps = []
            for part, window in zip(parts, windows, strict=True):
                refined = refiner(part.logits, part.keys, missing)
                maps.append(
                    without_overhang(refined, window, part.overhang) if any(part.overhang) else refined
                )
            return ScoreMaps((stitch(maps, windows, size),))
        cells = [window.divided(cell) for window in windows]
        grid = (-(-size[0] // cell), -(-size[1] // cell))
        keys = [part.keys for part in parts if part.keys is not None]
        logits = stitch([part.logits for part in parts], cells, grid)
        return ScoreMaps((refiner(logits, stitch(keys, cells, grid) if keys else None, missing),))


class Patchwork:
    """Squares of several sizes, each seen as a picture of its own (CLIP-DIY).

    Args:
        pyramid: sizes and weights.
        side: native side of the network, in pixels.
        published: remainders are left out and grids are stretched over the picture, wherever their patches stood.
    """

    def __init__(self, pyramid: Pyramid, side: int, *, published: bool) -> None:
        self.pyramid, self.side, self.published = pyramid, side, published

    def windows(self, size: Size) -> tuple[Window, ...]:
        """Of all scales, one after the other."""
        return tuple(window for scale in self._scales(size) for window in scale[0])

    def _scales(self, size: Size) -> list[tuple[list[Window], Size]]:
        """The patches of each scale, and the grid (rows, columns) that they stand in."""
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

    def pieces(self, resized: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """All patches at the native side of the network: [P, n, n, 3]."""
        windows = self.windows((resized.shape[0], resized.shape[1]))
        return np.stack([square_input(resized[window.slices], self.side) for window in windows])

    def join(
        self,
        parts: Sequence[WindowMaps],
        windows: Sequence[Window],
        size: Size,
        refiner: Refiner,
    ) -> ScoreMaps:
        """Refined scores of a picture from those [Q, 1, 1] of its patches."""
        del windows
        missing = refiner.missing(parts)
        maps, centres, left = [], [], list(parts)
        scales = self._scales(size)
        for cut, grid in scales:
            own, left = left[: len(cut)], left[len(cut) :]
            joined = torch.stack([part.logits[:, 0, 0] for part in own], dim=1)  # [Q, P]
            maps.append(refiner.without(joined.view(-1, *grid), missing))
            rows = [(w.top + w.height / 2) / size[0] for w in cut[:: grid[1]]]
            columns = [(w.left + w.width / 2) / size[1] for w in cut[: grid[1]]]
            centres.append(None if self.published else (rows, columns))
        absent = refiner.absent(maps)
        weighted = [
            refiner.without(one, absent) * (weight / len(scales))
            for one, weight in zip(maps, self.pyramid.weights, strict=True)
        ]
        return ScoreMaps(tuple(weighted), tuple(centres), self.pyramid.nearest)
