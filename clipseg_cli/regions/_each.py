"""A function of one image as a source."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from clipseg_cli.types import RegionMap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from clipseg_cli.types import DecodedImage, RegionMaker, RegionTools


def each(make: Callable[..., NDArray[np.int32]]) -> Callable[..., RegionMaker]:
    """`RegionSource.open` for (pixels uint8 [H, W, 3], **hyper-parameters) -> ids, which needs nothing else."""

    def open_source(tools: RegionTools, **values: Any) -> RegionMaker:
        del tools
        own = partial(make, **values)

        def maker(images: Sequence[DecodedImage]) -> list[RegionMap]:
            return [RegionMap(own(image.pixels)) for image in images]

        return maker

    open_source.__kwdefaults__ = make.__kwdefaults__  # what `--set` may change
    return open_source
