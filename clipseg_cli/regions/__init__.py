"""One file = one source of region masks; the folder is the registry.

A source makes ONE id map for a whole image: int32 [H, W], 0 = none, ids from 1. Keyword arguments of its `open` are
hyper-parameters: `--set superpixels.scale=50`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.utils.registry import Registry

if TYPE_CHECKING:
    from clipseg_cli.types import RegionSource

REGIONS: Registry[RegionSource] = Registry(__name__, "REGIONS", "source of regions")
