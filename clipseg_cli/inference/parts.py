"""What travels through the loop: an image, its crops, what the network says of each, and what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.inference.decide import ClassMaps, Decision
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


class Crop(NamedTuple):
    """Normalised pixels [3, h, w], and the regions [h, w] where the method reads them."""

    pixels: Tensor
    regions: Tensor | None = None


class Part(NamedTuple):
    """What the network says of a window or crop, and what refinements noted of it."""

    maps: LogitMaps
    overhang: Overhang
    observed: Mapping[str, Tensor]


class Labelled(NamedTuple):
    """What came out for an image, and what its class maps can be made from."""

    decision: Decision
    class_maps: ClassMaps
