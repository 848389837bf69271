"""What travels through the loop: an image, its crops, what the network says of each, and what came out."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import torch

from clipseg_cli.inference.kept import on_device
from clipseg_cli.ops.regions import nearest_ids
from clipseg_cli.types import Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.inference.decide import ClassMaps, Decision
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.inference.tiling import Overhang
    from clipseg_cli.ops.windows import Window
    from clipseg_cli.types import LogitMaps


class Picture(NamedTuple):
    """An image where the network is: pixels uint8 [3, h, w]; regions int32 [H, W]; the rest as in `Prepared`."""

    pixels: Tensor
    windows: Sequence[Window]
    size: tuple[int, int]
    crops: NDArray[np.uint8] | None
    auxiliary: Mapping[str, NDArray[np.float32]]
    regions: Tensor | None = None
    stored: Sequence[Mapping[str, Tensor]] | None = None

    @classmethod
    def of(
        cls, one: Prepared, ids: NDArray[np.int32] | None, device: torch.device, *, at_network_size: bool
    ) -> Picture:
        """A prepared image and its regions [H, W] on a device; labelled at its own size, or at that of the network."""
        return cls(
            torch.from_numpy(one.resized).to(device, non_blocking=True).permute(2, 0, 1),
            one.windows,
            (one.resized.shape[0], one.resized.shape[1]) if at_network_size else one.size,
            one.crops,
            one.auxiliary,
            None if ids is None else torch.from_numpy(ids).to(device, non_blocking=True),
            None if one.stored is None else [on_device(window, device) for window in one.stored],
        )

    @property
    def tiles(self) -> list[Tile]:
        """Where the windows lie in the image at network size."""
        return [Tile(w.top, w.top + w.height, w.left, w.left + w.width) for w in self.windows]


class Crop(NamedTuple):
    """Normalised pixels [3, h, w], the regions [h, w] where the method reads them, and what is stored of it."""

    pixels: Tensor
    regions: Tensor | None = None
    stored: Mapping[str, Tensor] | None = None


def cut(picture: Picture, normalise: Callable[[Tensor], Tensor], *, regions: bool) -> list[Crop]:
    """What the network gets of an image, with what was stored of each part; arguments as for `_pixels_of`."""
    crops = _pixels_of(picture, normalise, regions=regions)
    if picture.stored is None:
        return crops
    return [crop._replace(stored=own) for crop, own in zip(crops, picture.stored, strict=True)]


def _pixels_of(picture: Picture, normalise: Callable[[Tensor], Tensor], *, regions: bool) -> list[Crop]:
    """What the network gets of an image.

    Args:
        picture: with its windows, or with crops of its own.
        normalise: uint8 RGB [..., 3, H, W] -> what the network takes.
        regions: it takes those of each window, too.
    """
    if picture.crops is not None:
        crops = torch.from_numpy(picture.crops).to(picture.pixels.device, non_blocking=True).movedim(-1, -3)
        return [Crop(crop) for crop in normalise(crops)]
    image = normalise(picture.pixels)
    pixels = [image[:, window.slices[0], window.slices[1]] for window in picture.windows]
    if not regions or picture.regions is None:
        return [Crop(crop) for crop in pixels]
    ids = nearest_ids(picture.regions, (image.shape[1], image.shape[2]))
    return [Crop(crop, ids[w.slices]) for crop, w in zip(pixels, picture.windows, strict=True)]


def batches(crops: Sequence[Crop], size: int) -> Iterator[list[int]]:
    """Which crops go through the network at once: at most `size`, of one shape."""
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, crop in enumerate(crops):
        by_shape[tuple(crop.pixels.shape)].append(i)
    for indices in by_shape.values():
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


class Batch(NamedTuple):
    """Crops of one shape: normalised [B, 3, H, W], and their regions [B, H, W] where the method reads them."""

    images: Tensor
    regions: Tensor | None

    @classmethod
    def of(cls, crops: Sequence[Crop]) -> Batch:
        """Some crops on top of each other."""
        ids = [crop.regions for crop in crops if crop.regions is not None]
        return cls(torch.stack([crop.pixels for crop in crops]), torch.stack(ids) if ids else None)


class Part(NamedTuple):
    """What the network says of a window or crop, what refinements noted of it, and what is to be kept of it."""

    maps: LogitMaps
    overhang: Overhang
    observed: Mapping[str, Tensor]
    kept: Mapping[str, Tensor] | None = None


class Labelled(NamedTuple):
    """What came out for an image, what its class maps can be made from if they were asked for, and what is kept."""

    decision: Decision
    class_maps: ClassMaps | None
    kept: Sequence[Mapping[str, Tensor] | None] = ()
