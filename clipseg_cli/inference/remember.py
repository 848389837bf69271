"""What an image adds to a bank: features of several depths, or what each of its regions looks like and means."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from clipseg_cli.inference.parts import Stack, cut
from clipseg_cli.ops.region_means import region_means, windowed_means
from clipseg_cli.ops.regions import nearest_ids
from clipseg_cli.ops.windows import stitch

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.inference.parts import DeviceImage
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.types import DenseFeatures, Guide


class RegionFeatures(NamedTuple):
    """What is remembered of the regions of an image.

    Attributes:
        keys: unit [R, K] what each looks like.
        values: unit [R, D] what each means, in the space of the words.
    """

    keys: Tensor
    values: Tensor


@torch.inference_mode()
def read_levels(predictor: Predictor, image: Prepared) -> Tensor:
    """Features of several depths of an image, windows averaged: [F, h, w] float32; see `ops.levels`."""
    patch = predictor.reader.patch
    (on_device,) = predictor.to_device([image])
    found: list[Tensor] = []
    for dense in _windows(predictor, on_device):
        assert dense.levels is not None  # this predictor was made for it
        found.append(dense.levels.stacked()[0])
    grid = (-(-image.resized.shape[0] // patch), -(-image.resized.shape[1] // patch))
    return stitch(found, [window.divided(patch) for window in image.windows], grid)


@torch.inference_mode()
def read_regions(predictor: Predictor, image: Prepared, key_encoder: Guide | None) -> RegionFeatures:
    """Mean features of the regions of an image, windows averaged; pixels in no region are left out.

    Args:
        predictor: its reader hands out values where there is no `key_encoder`.
        image: with its regions, or the predictor's source makes them.
        key_encoder: the network that embeds regions as keys; it sees the image as a whole.
    """
    (on_device,) = predictor.to_device([image])
    assert on_device.regions is not None  # as for the predictor
    size = (image.resized.shape[0], image.resized.shape[1])
    ids = nearest_ids(on_device.regions, size)
    meanings, looks = [], []
    for dense, tile in zip(_windows(predictor, on_device), on_device.tiles, strict=True):
        meanings.append((dense.features[0].float(), tile, dense.padding))
        if key_encoder is None:
            assert dense.values is not None
            looks.append((dense.values[0].float(), tile, dense.padding))
    _, values = windowed_means(meanings, ids, unit=False)
    if key_encoder is None:
        _, keys = windowed_means(looks, ids, unit=True)
    else:
        _, keys = region_means(key_encoder(predictor.normalise(on_device.pixels)[None])[0], ids, unit=True)
    return RegionFeatures(F.normalize(keys, dim=1), F.normalize(values, dim=1))


def _windows(predictor: Predictor, image: DeviceImage) -> list[DenseFeatures]:
    """What the network says of each window, in order."""
    (crops,) = cut(Stack([0], [image]), predictor.normalise, regions=predictor.reads_regions)
    read = predictor.batches(crops, lambda batch: predictor.read(batch.images, batch.regions))
    return [_row(dense, row) for dense in read for row in range(len(dense.features))]


def _row(dense: DenseFeatures, row: int) -> DenseFeatures:
    """What is said of one window of a batch, as far as a bank needs it."""
    only = slice(row, row + 1)
    return dense._replace(
        features=dense.features[only],
        levels=None if dense.levels is None else dense.levels.of(only),
        values=None if dense.values is None else dense.values[only],
    )
