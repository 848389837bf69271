"""What travels through the loop: an image, its crops, what the network says of each, and what came out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from clipseg_cli.ops.regions import nearest_ids
from clipseg_cli.ops.windows import cut_windows
from clipseg_cli.types import LogitMaps, Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.inference.decide import ClassMaps, Decision
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.inference.tiling import Overhang
    from clipseg_cli.ops.windows import Window


class Picture(NamedTuple):
    """An image where the network is: pixels uint8 [3, h, w]; regions int32 [H, W]; the rest as in `Prepared`."""

    pixels: Tensor
    windows: Sequence[Window]
    size: tuple[int, int]
    crops: NDArray[np.uint8] | None
    auxiliary: Mapping[str, NDArray[np.float32]]
    regions: Tensor | None = None

    @classmethod
    def of(
        cls, one: Prepared, pixels: Tensor, ids: NDArray[np.int32] | None, *, at_network_size: bool
    ) -> Picture:
        """A prepared image that lies on a device, labelled at its own size, or at that of the network.

        Args:
            one: the image.
            pixels: uint8 [h, w, 3] of it, on the device.
            ids: its regions [H, W], or None.
            at_network_size: of the labels.
        """
        device = pixels.device
        return cls(
            pixels.permute(2, 0, 1),
            one.windows,
            (one.resized.shape[0], one.resized.shape[1]) if at_network_size else one.size,
            one.crops,
            one.auxiliary,
            None if ids is None else torch.from_numpy(ids).to(device, non_blocking=True),
        )

    @property
    def tiles(self) -> list[Tile]:
        """Where the windows lie in the image at network size."""
        return [Tile(w.top, w.top + w.height, w.left, w.left + w.width) for w in self.windows]


class Stack(NamedTuple):
    """Images of one size, which go through the loop together.

    What is known of a single image has no dimension for images in front, as in [Q, h, w]; that of several has one.

    Attributes:
        numbers: of the images among all.
        pictures: the images.
    """

    numbers: list[int]
    pictures: list[Picture]

    @property
    def windows(self) -> Sequence[Window]:
        """The same in all images."""
        return self.pictures[0].windows

    @property
    def network_size(self) -> tuple[int, int]:
        """(H, W) of what the network sees."""
        return self.pictures[0].pixels.shape[1], self.pictures[0].pixels.shape[2]

    def joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """One tensor of each image as one of all."""
        return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors))

    def split(self, tensor: Tensor) -> Sequence[Tensor]:
        """The same back again."""
        return [tensor] if len(self.pictures) == 1 else tensor.unbind()


def stacks_of(pictures: Sequence[Picture], room: Callable[[Picture], int]) -> list[Stack]:
    """Images of one size together, by where the first of each stack stands.

    Args:
        pictures: of any sizes.
        room: how many images like one may go together.
    """
    stacks: list[Stack] = []
    open_: dict[tuple[object, ...], Stack] = {}
    for number, picture in enumerate(pictures):
        key = (picture.pixels.shape, picture.size, len(picture.windows))
        stack = open_.get(key)
        if stack is None or len(stack.numbers) >= room(picture):
            open_[key] = stack = Stack([], [])
            stacks.append(stack)
        stack.numbers.append(number)
        stack.pictures.append(picture)
    return stacks


class Crop(NamedTuple):
    """Normalised pixels [3, h, w], and the regions [h, w] where the method reads them."""

    pixels: Tensor
    regions: Tensor | None = None


def cut(stack: Stack, normalise: Callable[[Tensor], Tensor], *, regions: bool) -> list[list[Crop]]:
    """What the network gets of each image.

    Args:
        stack: with windows, or with crops of its own.
        normalise: uint8 RGB [..., 3, H, W] -> what the network takes.
        regions: it takes those of each window, too.
    """
    if stack.pictures[0].crops is not None:
        return [[Crop(crop) for crop in normalise(_own_crops(one))] for one in stack.pictures]
    images = normalise(stack.joined([one.pixels for one in stack.pictures]))
    by_window = [stack.split(part) for part in cut_windows(images, stack.windows)]
    found = []
    for i, picture in enumerate(stack.pictures):
        pixels = [parts[i] for parts in by_window]
        if regions and picture.regions is not None:
            ids = cut_windows(nearest_ids(picture.regions, stack.network_size), stack.windows)
            found.append([Crop(*both) for both in zip(pixels, ids, strict=True)])
        else:
            found.append([Crop(crop) for crop in pixels])
    return found


def _own_crops(picture: Picture) -> Tensor:
    assert picture.crops is not None
    return torch.from_numpy(picture.crops).to(picture.pixels.device, non_blocking=True).movedim(-1, -3)


class Batch(NamedTuple):
    """Crops of one shape: normalised [B, 3, H, W], and their regions [B, H, W] where the method reads them."""

    images: Tensor
    regions: Tensor | None

    @classmethod
    def of(cls, crops: Sequence[Crop]) -> Batch:
        """Some crops on top of each other."""
        ids = [crop.regions for crop in crops if crop.regions is not None]
        return cls(torch.stack([crop.pixels for crop in crops]), torch.stack(ids) if ids else None)


@dataclass(frozen=True)
class Parts:
    """What the network says of N windows or crops of one shape, and what refinements noted of them.

    Attributes:
        logits: [N, Q, h, w].
        overhang: by how much the grid reaches over each: (top, bottom, left, right).
        keys, memory: [N, K, h, w] and [N, M, h, w], as in `LogitMaps`.
        observed: name of a refinement -> [N, ...].
    """

    logits: Tensor
    overhang: Overhang
    keys: Tensor | None = None
    memory: Tensor | None = None
    observed: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence[Parts]) -> Parts:
        """Those of several batches, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls.merged(parts, torch.cat)

    @classmethod
    def merged(cls, parts: Sequence[Parts], merge: Callable[[list[Tensor]], Tensor]) -> Parts:
        """Each of the tensors of several, merged."""

        def of(values: list[Tensor | None]) -> Tensor | None:
            there = [value for value in values if value is not None]
            return merge(there) if there else None

        return cls(
            merge([one.logits for one in parts]),
            parts[0].overhang,
            of([one.keys for one in parts]),
            of([one.memory for one in parts]),
            {name: merge([one.observed[name] for one in parts]) for name in parts[0].observed},
        )

    def of_images(self, first: Sequence[int], count: int) -> Parts:
        """Those of one image [P, ...], or of several [B, P, ...].

        Args:
            first: where the rows of each image begin.
            count: P, rows of each.
        """
        start, images = first[0], len(first)
        if images == 1:
            return self.merged([self], lambda one: one[0][start : start + count])
        if list(first) == list(range(start, start + images * count, count)):
            rows = slice(start, start + images * count)
            return self.merged([self], lambda one: one[0][rows].unflatten(0, (images, count)))
        return self.merged([self], lambda one: torch.stack([one[0][i : i + count] for i in first]))

    def windows(self) -> list[LogitMaps]:
        """The maps of each window or crop, of one image or of several."""
        logits = self.logits.unbind(-4)
        nothing = [None] * len(logits)
        keys = nothing if self.keys is None else self.keys.unbind(-4)
        memory = nothing if self.memory is None else self.memory.unbind(-4)
        both = zip(logits, keys, memory, strict=True)
        return [LogitMaps((one,), keys=k, memory=m) for one, k, m in both]


class Labelled(NamedTuple):
    """What came out for the images of a stack, and what class maps can be made from if they were asked for."""

    stack: Stack
    decision: Decision
    class_maps: Sequence[ClassMaps] | None
