"""What can be done to an image without a model, in a decoding thread: resizing, and planning the windows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipseg_cli.data.images import resize_image, target_size
from clipseg_cli.data.saliency_maps import read_saliency

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from clipseg_cli.inference.regions import Regions
    from clipseg_cli.inference.settings import Settings
    from clipseg_cli.inference.tiling import Tiling
    from clipseg_cli.ops.windows import Window
    from clipseg_cli.types import DecodedImage

MUCH_SMALLER = 8
"""Times by which an image is read smaller than it is, from which a note says so."""


@dataclass(frozen=True)
class Prepared:
    """An image at network size with its windows; made beside the model, in a decoding thread.

    Attributes:
        image: as it was decoded.
        resized: uint8 [H, W, 3] at network size.
        windows: in pixels of `resized`.
        size: (H, W) of the label map to make.
        crops: uint8 [P, n, n, 3] what the network gets instead of the windows themselves, or None.
        auxiliary: maps that need no model of ours, by name: "saliency" from files, "regions" at the size of the image.
        stored: what the network said of each window, kept before (`inference.kept`); None asks the network.
    """

    image: DecodedImage
    resized: NDArray[np.uint8]
    windows: tuple[Window, ...]
    size: tuple[int, int]
    crops: NDArray[np.uint8] | None = None
    auxiliary: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict)
    stored: Sequence[Mapping[str, NDArray[Any]]] | None = None


def prepare(
    image: DecodedImage,
    settings: Settings,
    tiling: Tiling,
    saliency_maps: Path | None,
    regions: Regions | None,
    size: tuple[int, int] | None,
) -> Prepared:
    """An image at network size, with its windows.

    Args:
        image: as it was decoded.
        settings: with the sizes.
        tiling: how it is cut.
        saliency_maps: folder of maps from files, or None.
        regions: source of id maps that are made here, or None.
        size: (H, W) of the label map to make; None is the image's own.

    Raises:
        ImageError: its saliency map or its id map is missing or damaged.
    """
    s, own = settings, (image.pixels.shape[0], image.pixels.shape[1])
    network = network_size(own, s)
    image = dataclasses.replace(image, notes=(*image.notes, *_size_notes(own, network, s)))
    auxiliary: dict[str, NDArray[Any]] = {}
    if regions is not None:
        (found,) = regions([image])
        auxiliary["regions"] = found.ids
        image = dataclasses.replace(image, notes=(*image.notes, *filter(None, [found.note])))
    resized = resize_image(image.pixels, network, antialias=not s.protocol.keep_exact_size)
    if saliency_maps:
        auxiliary["saliency"] = read_saliency(saliency_maps, image.source.relative)
    return Prepared(image, resized, tiling.windows(network), size or own, tiling.crops(resized), auxiliary)


def network_size(own: tuple[int, int], settings: Settings) -> tuple[int, int]:
    """(H, W) at which the network reads an image of `own` (H, W)."""
    s = settings
    if s.protocol.square and s.short_side:
        return s.short_side, s.short_side
    return target_size(*own, short_side=s.short_side or None, long_side=s.long_side, multiple=s.multiple)


def _size_notes(own: tuple[int, int], network: tuple[int, int], settings: Settings) -> Iterator[str]:
    """Sentences on an image that is read smaller than one would think."""
    wanted = target_size(*own, short_side=settings.short_side or None, multiple=settings.multiple)
    read = f"read at {network[1]}x{network[0]} pixels"
    capped = settings.long_side is not None and min(network) < min(wanted)
    if capped and not settings.protocol.square:
        yield f"{read}, not {wanted[1]}x{wanted[0]}: the long side is at most {settings.long_side}"
    elif min(own) >= MUCH_SMALLER * min(network):
        times = round(min(own) / min(network))
        yield f"{read}, {times} times smaller than it is: a larger --short-side shows smaller things"
