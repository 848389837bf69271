"""The one inference loop: pictures in, label maps out. Every command and the Python API go through here.

Path of a chunk of pictures: resize -> windows of all of them batched by shape through the tower -> cosines ->
stitch -> refine -> upsample and reduce in tiles.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from clipseg_cli.config import PROTOCOLS, Protocol, ignore_value
from clipseg_cli.data.classes import benchmark_names, load_benchmark
from clipseg_cli.data.images import resize_image, resize_nearest, target_size
from clipseg_cli.errors import UsageError
from clipseg_cli.ops.reduce import probability_map, reduce_maps
from clipseg_cli.ops.refine import absent_classes, remove_classes, smooth_by_keys
from clipseg_cli.ops.windows import Window, plan_windows, stitch
from clipseg_cli.types import Segmentation
from clipseg_cli.utils.registry import did_you_mean

Number = TypeVar("Number", int, float)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.ops.reduce import Reduced
    from clipseg_cli.types import ClassList, DecodedImage, DenseModel, Method


@dataclass(frozen=True)
class Settings:
    """A protocol with nothing left open: every number is the one in force.

    Attributes:
        short_side, long_side: pixels after the resize; a short side of 0 keeps the picture's own size.
        multiple: sides are rounded to this many pixels; 1 keeps the exact size.
        window, stride: pixels; window 0 is the whole image.
        cell: pixels in a cell of the stitched map: the patch, or 1.
        softmax_scale: factor on cosines before the softmax that gives labels and scores.
        refine_scale: the same inside prompt denoising and key smoothing, where the paper fixes 100.
        prompt_denoising, key_smoothing: thresholds; 0 is off.
        background_threshold: winners less probable than this become background.
        protocol: where the rest comes from.
    """

    protocol: Protocol
    short_side: int
    long_side: int
    multiple: int
    window: int
    stride: int
    cell: int
    softmax_scale: float
    refine_scale: float
    prompt_denoising: float
    key_smoothing: float
    background_threshold: float


def resolve_settings(
    config: InferenceConfig, protocol: Protocol, backbone: DenseModel, patch: int
) -> Settings:
    """What holds for this model: the user's option, else the protocol's, else the model's own.

    Raises:
        UsageError: options that exclude each other.
    """

    def first(*options: Number | None) -> Number:
        return next(option for option in options if option is not None)

    by_patch = protocol.stitch == "patch"
    window = first(config.window, protocol.window, backbone.image_size)
    stride = first(config.stride, protocol.stride, max(1, window // 2))
    if window and not 0 < stride <= window:
        raise UsageError(
            f"--stride {stride} does not fit --window {window}", hint="use 1 to the window's side"
        )
    if by_patch and window:
        # On one patch grid windows must start and end at patches.
        window = max(patch, round(window / patch) * patch)
        stride = min(window, max(patch, round(stride / patch) * patch))
    return Settings(
        protocol=protocol,
        short_side=first(config.short_side, protocol.short_side, backbone.short_side),
        long_side=first(protocol.long_side, 2048),
        multiple=1 if protocol.keep_exact_size else patch,
        window=window,
        stride=stride,
        cell=patch if by_patch else 1,
        softmax_scale=protocol.softmax_scale or backbone.logit_scale,
        refine_scale=100.0,
        prompt_denoising=config.prompt_denoising,
        key_smoothing=config.key_smoothing,
        background_threshold=first(config.background_threshold, protocol.background_threshold, 0.0),
    )


def find_protocol(name: str, benchmark: str | None = None) -> Protocol:
    """The protocol of that name, as it is on a benchmark.

    Args:
        name: of the protocol.
        benchmark: name of a class list; any other text, or None, is data of the user's own.

    Raises:
        UsageError: there is no such protocol.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol '{name}'", hint=did_you_mean(name, PROTOCOLS))
    known = benchmark is not None and benchmark in benchmark_names()
    return PROTOCOLS[name].on(benchmark, load_benchmark(benchmark) if benchmark and known else {})


@dataclass(frozen=True)
class Prepared:
    """A picture at network size with its windows; made beside the model, in a decoding thread.

    Attributes:
        image: the picture.
        resized: uint8 [H, W, 3] at network size.
        windows: in pixels of `resized`.
        size: (H, W) of the label map to make.
    """

    image: DecodedImage
    resized: NDArray[np.uint8]
    windows: tuple[Window, ...]
    size: tuple[int, int]


@dataclass(frozen=True)
class WindowMaps:
    """Scores [Q, h, w] of one window, with its keys [K, h, w] while they are needed."""

    logits: Tensor
    keys: Tensor | None


class Predictor:
    """A network, a method and a list of words, ready to label pictures.

    Args:
        backbone: a frozen CLIP, or a student.
        method: how a CLIP is read; None for a student.
        classes: what the labels mean.
        text_embeds: [Q, D] one unit vector for each word of `classes.queries`.
        config: the user's options.
        device, dtype: where and in what precision the tower computes; scores are always float32.
        protocol: None finds it by `config.protocol`.
        class_scores: hand out the map of any single class too.
    """

    def __init__(
        self,
        backbone: DenseModel,
        method: Method | None,
        classes: ClassList,
        text_embeds: Tensor,
        config: InferenceConfig,
        *,
        device: torch.device,
        dtype: torch.dtype,
        protocol: Protocol | None = None,
        class_scores: bool = False,
    ) -> None:
        protocol = protocol or find_protocol(config.protocol)
        if config.key_smoothing > 0 and (method is None or not method.keys):
            raise UsageError(f"--method {config.method} has no keys for --key-smoothing", hint="leave it out")
        self.reader = backbone.reader(
            method,
            activation=protocol.activation,
            ln_eps=protocol.ln_eps,
            keys=config.key_smoothing > 0,
        )
        self.settings = resolve_settings(config, protocol, backbone, self.reader.patch)
        self.classes, self.text_embeds = classes, text_embeds
        self.device, self.dtype = device, dtype
        self.batch_size = config.batch_size
        self.class_scores = class_scores
        self.mean = torch.tensor(protocol.mean or backbone.mean, device=device).view(3, 1, 1) * 255
        self.std = torch.tensor(protocol.std or backbone.std, device=device).view(3, 1, 1) * 255
        # The type of the label map itself, so that a 12-megapixel map is never held as int64.
        narrow = ignore_value(len(classes)) < 256
        dtype_of_labels = torch.uint8 if narrow else torch.int32
        self._class_of = torch.tensor(classes.query_to_class, device=device, dtype=dtype_of_labels)

    def prepare(self, image: DecodedImage, size: tuple[int, int] | None = None) -> Prepared:
        """Resize and plan the windows; touches no model, so that a thread can do it.

        Args:
            image: the picture.
            size: (H, W) of the label map to make; None is the picture's own.
        """
        s = self.settings
        height, width = image.pixels.shape[:2]
        network = target_size(
            height, width, short_side=s.short_side or None, long_side=s.long_side, multiple=s.multiple
        )
        if s.protocol.square and s.short_side:
            network = (s.short_side, s.short_side)
        resized = resize_image(image.pixels, network, antialias=not s.protocol.keep_exact_size)
        windows = tuple(plan_windows(network, s.window, s.stride))
        return Prepared(image, resized, windows, size or (height, width))

    @torch.inference_mode()
    def predict(self, pictures: Sequence[Prepared]) -> Iterator[Segmentation]:
        """Label maps of some pictures, in order; their windows share batches.

        Only small maps are kept for all pictures; those at full size come one by one.
        """
        tensors = (
            torch.from_numpy(picture.resized).to(self.device, non_blocking=True).permute(2, 0, 1)
            for picture in pictures
        )
        maps = self._maps(tensors, [picture.windows for picture in pictures])
        for picture, found in zip(pictures, maps, strict=True):
            yield self._label(picture, found)

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[Tensor]:
        """Refined scores [Q, h, w] of each of some pictures at network size: what `predict` decides by.

        Args:
            images: uint8 RGB [B, 3, H, W], where the network is.
        """
        windows = tuple(
            plan_windows((images.shape[2], images.shape[3]), self.settings.window, self.settings.stride)
        )
        return list(self._maps(images, [windows] * len(images)))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB [..., 3, H, W] -> what the network takes."""
        return (images.float() - self.mean) / self.std

    def _maps(self, images: Iterable[Tensor], windows: Sequence[Sequence[Window]]) -> Iterator[Tensor]:
        """Refined scores of pictures, uint8 [3, H, W] each; the windows of all of them share batches."""
        crops: list[Tensor] = []
        sizes: list[tuple[int, int]] = []
        for image, parts in zip(images, windows, strict=True):
            tensor = self.normalise(image)
            crops += [tensor[:, window.slices[0], window.slices[1]] for window in parts]
            sizes.append((image.shape[1], image.shape[2]))
        found = iter(self._read(crops))
        for size, parts in zip(sizes, windows, strict=True):
            yield self._join([next(found) for _ in parts], parts, size)

    def _read(self, crops: Sequence[Tensor]) -> list[WindowMaps]:
        """Windows of any shape, in batches of one shape, through the tower."""
        by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, crop in enumerate(crops):
            by_shape[(crop.shape[1], crop.shape[2])].append(i)
        found: dict[int, WindowMaps] = {}
        for indices in by_shape.values():
            for start in range(0, len(indices), self.batch_size):
                batch = indices[start : start + self.batch_size]
                images = torch.stack([crops[i] for i in batch])  # [B, 3, H, W]
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    dense = self.reader(images)
                logits = self.reader.logits(dense.features, self.text_embeds)  # [B, Q, h, w]
                for row, i in enumerate(batch):
                    keys = None if dense.keys is None else dense.keys[row].float()
                    found[i] = WindowMaps(logits[row], keys)
        return [found[i] for i in range(len(crops))]

    def _join(self, parts: Sequence[WindowMaps], windows: Sequence[Window], size: tuple[int, int]) -> Tensor:
        """Refined scores [Q, h, w] of a picture of (H, W) pixels from those of its windows."""
        s = self.settings
        if s.cell == 1:
            # The published order: each window is refined by itself, upsampled, averaged pixel by pixel.
            return stitch([self._refine(part) for part in parts], windows, size)
        cells = [window.divided(s.cell) for window in windows]
        grid = (-(-size[0] // s.cell), -(-size[1] // s.cell))
        keys = [part.keys for part in parts if part.keys is not None]
        whole = WindowMaps(
            stitch([part.logits for part in parts], cells, grid),
            stitch(keys, cells, grid) if keys else None,
        )
        return self._refine(whole)

    def _refine(self, part: WindowMaps) -> Tensor:
        """Prompt denoising, then key smoothing: cosines, or probabilities if smoothed, [Q, h, w]."""
        s, logits = self.settings, part.logits
        mapping = self.classes.query_to_class
        if s.prompt_denoising > 0:
            absent = absent_classes(
                logits,
                s.prompt_denoising,
                scale=s.refine_scale,
                query_to_class=mapping,
                keep=self.classes.background,
            )
            logits = remove_classes(logits, absent, mapping)
        if s.key_smoothing > 0 and part.keys is not None:
            return smooth_by_keys(
                logits, part.keys, s.key_smoothing, scale=s.refine_scale, norm=s.protocol.key_norm
            )[0]
        return logits

    def decide(self, maps: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Reduced]:
        """One label a pixel from refined scores [Q, h, w], with the words they were decided by.

        Returns:
            labels [H, W] class ids, scores [H, W] float32 in [0, 1], and what class maps can be made from.
        """
        s, classes = self.settings, self.classes
        # Smoothed maps are probabilities already; the published code still compares them as they are.
        reduced = reduce_maps(self._scaled(maps), size, probabilities=s.key_smoothing > 0)
        labels, scores = self._class_of[reduced.winner], reduced.score
        if s.background_threshold > 0 and classes.background is not None:
            unsure = (scores < s.background_threshold) & (labels != classes.background)
            labels = labels.masked_fill(unsure, classes.background)
            scores = torch.where(unsure, 1 - scores, scores)
        return labels, scores, reduced

    def _scaled(self, maps: Tensor) -> Tensor:
        return maps if self.settings.key_smoothing > 0 else maps * self.settings.softmax_scale

    def _label(self, picture: Prepared, maps: Tensor) -> Segmentation:
        s, classes = self.settings, self.classes
        repeat = s.protocol.upsample == "labels"
        size = (picture.resized.shape[0], picture.resized.shape[1]) if repeat else picture.size
        labels, scores, reduced = self.decide(maps, size)
        scaled = self._scaled(maps)

        def class_scores(class_id: int) -> NDArray[np.float32]:
            with torch.inference_mode():
                best: Tensor | None = None
                for query in (self._class_of == class_id).nonzero()[:, 0].tolist():
                    word = probability_map(
                        scaled[query], reduced.log_total, probabilities=s.key_smoothing > 0
                    )
                    best = word if best is None else torch.maximum(best, word)
                if best is None:
                    return np.zeros(picture.size, dtype=np.float32)
                return resize_nearest(best.clamp_(max=1).cpu().numpy(), picture.size)

        narrow = ignore_value(len(classes)) < 256
        found = labels.cpu().numpy().astype(np.uint8 if narrow else np.uint16, copy=False)
        return Segmentation(
            labels=resize_nearest(found, picture.size),
            scores=resize_nearest(scores.cpu().numpy(), picture.size),
            classes=classes,
            image=picture.image,
            class_scores=class_scores if self.class_scores else None,
        )

    def describe(self) -> dict[str, object]:
        """The settings in force, for the record beside the results."""
        return dataclasses.asdict(self.settings)
