"""The source of region masks that `--regions` names: checked, opened, asked for the id maps of images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.data.images import resize_labels
from clipseg_cli.data.region_maps import read_region_ids
from clipseg_cli.errors import ImageError, ModelError, UsageError, did_you_mean
from clipseg_cli.models.weights import hub
from clipseg_cli.models.weights.pretrained import load_pretrained
from clipseg_cli.ops.regions import MOST_REGIONS
from clipseg_cli.regions import REGIONS
from clipseg_cli.types import DecodedImage, ImageSource, RegionTools

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.inference.hyperparameters import Chosen
    from clipseg_cli.types import RegionMaker, RegionMap, RegionSource

PACKAGES = {"skimage": "scikit-image"}
"""Module -> what it is called where it is installed from."""


@dataclass(frozen=True)
class Regions:
    """A source that is ready.

    Attributes:
        name: as `--regions` names it.
        threaded: its maps are made in the threads that read images; else where the model computes.
        made_by: for the record: versions or weights.
    """

    name: str
    threaded: bool
    made_by: Mapping[str, Any]
    make: RegionMaker

    def __call__(self, images: Sequence[DecodedImage]) -> list[RegionMap]:
        """The id map of each image at its own size.

        Raises:
            ImageError: an image has none, or more regions than can be told apart.
        """
        return [_checked(one, image) for one, image in zip(self.make(images), images, strict=True)]

    def in_batches(self, images: Sequence[DecodedImage], size: int) -> list[NDArray[np.int32]]:
        """Their ids, some images at once: a quarter of `size`, for its networks look at larger images than CLIP."""
        step = max(1, size // 4)
        groups = [self(images[i : i + step]) for i in range(0, len(images), step)]
        return [one.ids for group in groups for one in group]

    def of_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Ids [H, W] of an image that comes from no file, uint8 RGB [H, W, 3]."""
        image = DecodedImage(ImageSource(None, PurePosixPath("image")), pixels)
        return self([image])[0].ids


def split_name(text: str) -> tuple[str, str]:
    """Name and files of "NAME=FILES"."""
    name, _, files = text.partition("=")
    return name.strip().replace("-", "_"), files.strip()


def check_regions(text: str, used_by: Iterable[str]) -> str:
    """What can be said of `--regions` before anything is loaded; the name of the source, "" for none.

    Args:
        text: of the option.
        used_by: options in use that need regions, as in "--region-vote".

    Raises:
        UsageError: an unknown source, files that are missing or not asked for, regions that nobody uses, or none where
            somebody does.
        ModelError: a package is missing.
    """
    asking = list(used_by)
    if not text:
        if asking:
            raise UsageError(
                f"{asking[0]} needs regions",
                hint=f"name a source with --regions: {', '.join(REGIONS.names())}; superpixels needs no weights",
            )
        return ""
    name, files = split_name(text)
    if name not in REGIONS.names():
        raise UsageError(f"unknown source of regions '{name}'", hint=did_you_mean(name, REGIONS.names()))
    source = REGIONS.get(name)
    if source.required and not files:
        raise UsageError(
            f"--regions {name} needs a {source.files.lower()}", hint=f"as in --regions {name}={source.files}"
        )
    if files and not source.files:
        raise UsageError(f"--regions {name} takes no files", hint=f"use --regions {name}")
    if source.files == "FOLDER" and not _path(files).is_dir():
        raise UsageError(f"--regions {text}: there is no folder {files}", hint="name the folder of id maps")
    if not asking:
        raise UsageError(
            f"--regions {name} does nothing by itself", hint="add --region-vote, or take --method corrclip"
        )
    _require(source, name)
    return name


def _require(source: RegionSource, name: str) -> None:
    lacking = [PACKAGES.get(module, module) for module in source.packages if find_spec(module) is None]
    if lacking:
        raise ModelError(
            f"--regions {name} needs {' and '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} not "
            "installed",
            hint='pip install "clipseg-cli[regions]"',
        )


def is_here(text: str) -> bool:
    """Whether a source needs no network: it has no weights, or they are in a folder or in the hub's cache."""
    name, files = split_name(text)
    source = REGIONS.get(name)
    weights = files or source.weights
    return not source.network or _path(weights).is_dir() or hub.is_cached(weights)


def reads_names(text: str) -> bool:
    """Whether a source finds its maps by the names of images."""
    name, _ = split_name(text)
    return name in REGIONS.names() and REGIONS.get(name).files == "FOLDER"


def load_regions(
    config: InferenceConfig, chosen: Chosen, device: torch.device, dtype: torch.dtype
) -> Regions | None:
    """The source that `--regions` names, checked before; None where it is left out.

    Args:
        config: the user's options.
        chosen: what `--set` says.
        device, dtype: where and in what precision a network computes.

    Raises:
        ClipsegError: its weights cannot be fetched or read.
    """
    if not config.regions:
        return None
    name, files = split_name(config.regions)
    source, hyperparameters = REGIONS.get(name), chosen.of(name)
    tools = RegionTools(files or source.weights, device, dtype, load_pretrained, read_region_ids)
    made_by: dict[str, Any] = {"name": name, **hyperparameters}
    if tools.files:
        made_by["files"] = tools.files
    made_by |= {PACKAGES.get(module, module): _version(module) for module in source.packages}
    return Regions(name, not source.network, made_by, source.open(tools, **hyperparameters))


def _version(module: str) -> str:
    from importlib.metadata import version

    return version(PACKAGES.get(module, module))


def _checked(found: RegionMap, image: DecodedImage) -> RegionMap:
    """Small numbers from 0, at the size of the image."""
    ids, count = found.ids, 0
    if ids.size and ids.max() > MOST_REGIONS:  # such as colours that were read as numbers
        known, places = np.unique(ids, return_inverse=True)
        count = int((known > 0).sum())
        ids = (np.arange(len(known)) + int(known[0] > 0))[places].reshape(ids.shape)
    ids = np.asarray(ids, np.int32)
    if count > MOST_REGIONS:
        raise ImageError(
            f"{image.source} falls into {count:,} regions, and at most {MOST_REGIONS:,} can be told apart",
            hint="take larger regions: --set superpixels.min_size=50, or an id map with fewer ids",
            image=str(image.source),
        )
    size = (image.pixels.shape[0], image.pixels.shape[1])
    return found._replace(ids=ids if ids.shape == size else resize_labels(ids, size))


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # noqa: PTH111  (leaves the home of an unknown user as it is written)
