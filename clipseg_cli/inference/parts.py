"""What travels through the loop: an image, its crops, what the network says of each, and what came out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from clipseg_cli.inference.kept import on_device
from clipseg_cli.ops.regions import nearest_ids
from clipseg_cli.ops.windows import cut_windows
from clipseg_cli.types import LogitMaps, Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.inference.decide import ClassMaps, Decision
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.inference.tiling import Padding
    from clipseg_cli.ops.windows import Window


class DeviceImage(NamedTuple):
    """An image on the device: pixels uint8 [3, h, w]; regions int32 [H, W]; the rest as in `Prepared`."""

    pixels: Tensor
    windows: Sequence[Window]
    size: tuple[int, int]
    crops: NDArray[np.uint8] | None
    auxiliary: Mapping[str, NDArray[np.float32]]
    regions: Tensor | None = None
    stored: Sequence[Mapping[str, Tensor]] | None = None

    @classmethod
    def of(
        cls, one: Prepared, pixels: Tensor, ids: NDArray[np.int32] | None, *, at_network_size: bool
    ) -> DeviceImage:
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
            None if one.stored is None else [on_device(window, device) for window in one.stored],
        )

    @property
    def tiles(self) -> list[Tile]:
        """Where the windows lie in the image at network size."""
        return [Tile(w.top, w.top + w.height, w.left, w.left + w.width) for w in self.windows]


class Stack(NamedTuple):
    """Images of one size, which go through the loop together.

    Tensors of a single image have no batch dimension, as in [Q, h, w]; those of several have [B] in front.

    Attributes:
        numbers: of these images, among all that were handed in.
        images: all of one size.
    """

    numbers: list[int]
    images: list[DeviceImage]

    @property
    def windows(self) -> Sequence[Window]:
        """The same in all images."""
        return self.images[0].windows

    @property
    def network_size(self) -> tuple[int, int]:
        """(H, W) of what the network sees."""
        return self.images[0].pixels.shape[1], self.images[0].pixels.shape[2]

    def joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """The tensors of all images as one, with [B] in front where there are several."""
        return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors))

    def split(self, tensor: Tensor) -> Sequence[Tensor]:
        """The opposite of `joined`: a tensor of all images as one of each."""
        return [tensor] if len(self.images) == 1 else tensor.unbind()


def stacks_of(images: Sequence[DeviceImage], room: Callable[[DeviceImage], int]) -> list[Stack]:
    """Images grouped by their size, in the order of the first of each stack.

    Args:
        images: of any sizes.
        room: how many images of the size of one may go together.
    """
    stacks: list[Stack] = []
    open_: dict[tuple[object, ...], Stack] = {}
    for number, image in enumerate(images):
        key = (image.pixels.shape, image.size, len(image.windows))
        stack = open_.get(key)
        if stack is None or len(stack.numbers) >= room(image):
            open_[key] = stack = Stack([], [])
            stacks.append(stack)
        stack.numbers.append(number)
        stack.images.append(image)
    return stacks


class Crop(NamedTuple):
    """Normalised pixels [3, h, w], the regions [h, w] where the method reads them, and what is stored of it."""

    pixels: Tensor
    regions: Tensor | None = None
    stored: Mapping[str, Tensor] | None = None


def cut(stack: Stack, normalise: Callable[[Tensor], Tensor], *, regions: bool) -> list[list[Crop]]:
    """What the network gets of each image, with what was stored of each part.

    Args:
        stack: with windows, or with crops of its own.
        normalise: uint8 RGB [..., 3, H, W] -> what the network takes.
        regions: it takes those of each window, too.
    """
    if stack.images[0].crops is not None:
        by_image = [normalise(_own_crops(one)).unbind() for one in stack.images]
    else:
        images = normalise(stack.joined([one.pixels for one in stack.images]))
        by_window = [stack.split(part) for part in cut_windows(images, stack.windows)]
        by_image = list(zip(*by_window, strict=True))
    found = []
    for image, pixels in zip(stack.images, by_image, strict=True):
        ids: Iterable[Tensor | None] = [None] * len(pixels)
        if regions and image.regions is not None:
            ids = cut_windows(nearest_ids(image.regions, stack.network_size), stack.windows)
        stored: Iterable[Mapping[str, Tensor] | None] = image.stored or [None] * len(pixels)
        found.append([Crop(*one) for one in zip(pixels, ids, stored, strict=True)])
    return found


def _own_crops(image: DeviceImage) -> Tensor:
    assert image.crops is not None
    return torch.from_numpy(image.crops).to(image.pixels.device, non_blocking=True).movedim(-1, -3)


class Batch(NamedTuple):
    """Crops of one shape on top of each other.

    Attributes:
        images: normalised [B, 3, H, W].
        regions: [B, H, W], where the method reads them.
        stored: [B] what was stored of each, or None.
    """

    images: Tensor
    regions: Tensor | None
    stored: Sequence[Mapping[str, Tensor] | None]

    @classmethod
    def of(cls, crops: Sequence[Crop]) -> Batch:
        """Some crops on top of each other."""
        ids = [crop.regions for crop in crops if crop.regions is not None]
        pixels = torch.stack([crop.pixels for crop in crops])
        return cls(pixels, torch.stack(ids) if ids else None, [crop.stored for crop in crops])


@dataclass(frozen=True)
class Parts:
    """What the network says of N windows or crops of one shape, what refinements noted, and what is to be kept.

    Attributes:
        logits: [N, Q, h, w].
        padding: pixels added around each, to be cut off its maps: (top, bottom, left, right).
        keys, memory: [N, K, h, w] and [N, M, h, w], as in `LogitMaps`.
        observed: name of a refinement -> [N, ...].
        kept: of each of them; empty where nothing is.
    """

    logits: Tensor
    padding: Padding
    keys: Tensor | None = None
    memory: Tensor | None = None
    observed: Mapping[str, Tensor] = field(default_factory=dict)
    kept: Sequence[Mapping[str, Tensor] | None] = ()

    @classmethod
    def joined(cls, parts: Sequence[Parts]) -> Parts:
        """Those of several batches, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return replace(_merged(parts, torch.cat), kept=[one for part in parts for one in part.kept])

    def of_images(self, first: Sequence[int], count: int) -> Parts:
        """Those of one image [P, ...], or of several [B, P, ...].

        Args:
            first: where the rows of each image begin.
            count: P, rows of each.
        """
        start, images = first[0], len(first)
        if images == 1:
            found = _merged([self], lambda one: one[0][start : start + count])
        elif list(first) == list(range(start, start + images * count, count)):
            rows = slice(start, start + images * count)
            found = _merged([self], lambda one: one[0][rows].unflatten(0, (images, count)))
        else:
            found = _merged([self], lambda one: torch.stack([one[0][i : i + count] for i in first]))
        return replace(found, kept=[one for i in first for one in self.kept[i : i + count]])

    def windows(self) -> list[LogitMaps]:
        """The maps of each window or crop, of one image or of several."""
        logits = self.logits.unbind(-4)
        nothing = [None] * len(logits)
        keys = nothing if self.keys is None else self.keys.unbind(-4)
        memory = nothing if self.memory is None else self.memory.unbind(-4)
        both = zip(logits, keys, memory, strict=True)
        return [LogitMaps((one,), keys=k, memory=m) for one, k, m in both]


def _merged(parts: Sequence[Parts], merge: Callable[[list[Tensor]], Tensor]) -> Parts:
    """Several parts as one: each of their tensors is merged."""

    def of(values: list[Tensor | None]) -> Tensor | None:
        there = [value for value in values if value is not None]
        return merge(there) if there else None

    return Parts(
        merge([one.logits for one in parts]),
        parts[0].padding,
        of([one.keys for one in parts]),
        of([one.memory for one in parts]),
        {name: merge([one.observed[name] for one in parts]) for name in parts[0].observed},
    )


class Labelled(NamedTuple):
    """What came out for the images of a stack, what class maps can be made from if asked for, and what is kept."""

    stack: Stack
    decision: Decision
    class_maps: Sequence[ClassMaps] | None
    kept: Sequence[Mapping[str, Tensor] | None] = ()

    def kept_of(self, row: int) -> Sequence[Mapping[str, Tensor] | None]:
        """What is to be kept of the windows of one of the images."""
        count = len(self.kept) // len(self.stack.images)
        return self.kept[row * count : (row + 1) * count]
