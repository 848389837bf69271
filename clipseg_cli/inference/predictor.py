"""The one inference loop: pictures in, label maps out. Every command and the Python API go through here.

Path of a chunk of pictures: resize -> windows of all of them batched by shape through the tower -> cosines ->
stitch -> refine -> upsample and reduce in tiles.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from clipseg_cli.config import NO_SALIENCY, Protocol, ignore_value
from clipseg_cli.data.images import resize_image, resize_nearest, target_size
from clipseg_cli.errors import UsageError
from clipseg_cli.inference.auxiliary import read_saliency, saliency_folder
from clipseg_cli.inference.decide import Decider
from clipseg_cli.inference.settings import find_protocol, resolve_settings
from clipseg_cli.inference.tiling import Patchwork, Refiner, Sliding, WindowMaps
from clipseg_cli.ops.pamr import PAMR_DILATIONS, PixelAdaptive
from clipseg_cli.ops.patches import SaliencyFusion
from clipseg_cli.ops.presence import presence
from clipseg_cli.ops.reduce import Changes, stretched
from clipseg_cli.ops.refine import doubtful_patches
from clipseg_cli.types import Segmentation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.inference.logit_maps import ScoreMaps
    from clipseg_cli.models.auxiliary.saliency import Saliency
    from clipseg_cli.ops.reduce import TileChange
    from clipseg_cli.ops.windows import Window
    from clipseg_cli.types import ClassList, DecodedImage, DenseFeatures, DenseModel, Guide, Method


@dataclass(frozen=True)
class Prepared:
    """A picture at network size with its windows; made beside the model, in a decoding thread.

    Attributes:
        image: the picture.
        resized: uint8 [H, W, 3] at network size.
        windows: in pixels of `resized`.
        size: (H, W) of the label map to make.
        pieces: uint8 [P, n, n, 3] what the network gets instead of the windows themselves, or None.
        saliency: [h, w] in [0, 1] from a file, or None.
    """

    image: DecodedImage
    resized: NDArray[np.uint8]
    windows: tuple[Window, ...]
    size: tuple[int, int]
    pieces: NDArray[np.uint8] | None = None
    saliency: NDArray[np.float32] | None = None


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
        guide: the other network, for a method that asks for one.
        saliency: finds the foreground, for `config.saliency`.

    Attributes:
        saliency_name: what `config.saliency` means for these classes.
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
        guide: Guide | None = None,
        saliency: Saliency | None = None,
    ) -> None:
        protocol = protocol or find_protocol(config.protocol)
        if config.key_smoothing > 0 and method is not None and method.pyramid is not None:
            raise UsageError(
                f"--method {config.method_name} has no keys for --key-smoothing: each patch is a picture of its own",
                hint="leave out --key-smoothing, or choose another --method",
            )
        mean, std = (
            torch.tensor(v, device=device)
            for v in (protocol.mean or backbone.mean, protocol.std or backbone.std)
        )
        self.reader = backbone.reader(
            method,
            activation=protocol.activation,
            ln_eps=protocol.ln_eps,
            keys=config.key_smoothing > 0,
            guide=guide,
            black=-mean / std,
            whole=config.presence,
        )
        self.saliency_name = config.saliency_name(classes.background is not None)
        if self.saliency_name == NO_SALIENCY:  # "auto", of classes without a background
            saliency = None
        self.guide, self.saliency, self.saliency_maps = guide, saliency, saliency_folder(config)
        if (saliency or self.saliency_maps) and classes.background is None:
            raise UsageError(
                f"--saliency {config.saliency} decides what is background, and there is none among the classes",
                hint="name some with --background, or leave --saliency out",
            )
        pyramid = method.pyramid if method is not None else None
        self.settings = resolve_settings(config, protocol, backbone, self.reader.patch, pyramid)
        self.layout = (
            Sliding(self.settings)
            if pyramid is None
            else Patchwork(pyramid, backbone.image_size, published=protocol.square)
        )
        self.refiner = Refiner(self.settings, classes)
        self.decide = Decider(self.settings, classes, device)
        self.classes, self.text_embeds = classes, text_embeds
        self.device, self.dtype = device, dtype
        self.batch_size = config.batch_size
        self.class_scores = class_scores
        self.mean, self.std = mean.view(3, 1, 1) * 255, std.view(3, 1, 1) * 255

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
        return Prepared(
            image,
            resized,
            self.layout.windows(network),
            size or (height, width),
            self.layout.pieces(resized),
            read_saliency(self.saliency_maps, image.source.relative) if self.saliency_maps else None,
        )

    @torch.inference_mode()
    def predict(self, pictures: Sequence[Prepared]) -> Iterator[Segmentation]:
        """Label maps of some pictures, in order; their windows share batches.

        Only small maps are kept for all pictures; those at full size come one by one.
        """
        cut = (self._cut(picture.resized, picture.windows, picture.pieces) for picture in pictures)
        shapes = [(picture.resized.shape[0], picture.resized.shape[1]) for picture in pictures]
        found = self._maps(cut, [picture.windows for picture in pictures], shapes)
        for picture, maps in zip(pictures, found, strict=True):
            yield self._label(picture, maps)

    @torch.no_grad()
    def maps(self, images: Tensor) -> list[ScoreMaps]:
        """Refined scores of each of some pictures at network size: what `predict` decides by.

        Args:
            images: uint8 RGB [B, 3, H, W], where the network is.
        """
        size = (images.shape[2], images.shape[3])
        windows = self.layout.windows(size)
        if isinstance(self.layout, Sliding):
            cut = (_windows_of(self.normalise(image), windows) for image in images)
        else:
            pixels = images.permute(0, 2, 3, 1).cpu().numpy()
            cut = (self._cut(one, windows, self.layout.pieces(one)) for one in pixels)
        return list(self._maps(cut, [windows] * len(images), [size] * len(images)))

    def _cut(
        self, resized: NDArray[np.uint8], windows: Sequence[Window], pieces: NDArray[np.uint8] | None
    ) -> list[Tensor]:
        """What the network gets of a picture: normalised [3, h, w] each."""
        source = resized if pieces is None else pieces
        tensor = torch.from_numpy(source).to(self.device, non_blocking=True).movedim(-1, -3)
        tensor = self.normalise(tensor)
        return _windows_of(tensor, windows) if pieces is None else list(tensor)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB [..., 3, H, W] -> what the network takes."""
        return (images.float() - self.mean) / self.std

    def _maps(
        self,
        cut: Iterable[list[Tensor]],
        windows: Sequence[Sequence[Window]],
        sizes: Sequence[tuple[int, int]],
    ) -> Iterator[ScoreMaps]:
        """Refined scores of pictures from their pieces, which share batches."""
        crops = [crop for pieces in cut for crop in pieces]
        found = iter(self._read(crops))
        for size, parts in zip(sizes, windows, strict=True):
            yield self.layout.join([next(found) for _ in parts], parts, size, self.refiner)

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
                logits = self._grounded(self.reader.logits(dense.features, self.text_embeds), dense)
                evidence = self._presence(dense, logits)
                for row, i in enumerate(batch):
                    keys = None if dense.keys is None else dense.keys[row].float()
                    found[i] = WindowMaps(
                        logits[row], keys, dense.overhang, None if evidence is None else evidence[row]
                    )
        return [found[i] for i in range(len(crops))]

    def _grounded(self, logits: Tensor, dense: DenseFeatures) -> Tensor:
        """Cosines [B, Q, h, w], those of the background 1 where neither words nor the guide see a thing."""
        if dense.objectness is None or self.classes.background is None:
            return logits
        prob = (self.settings.refine_scale * logits).softmax(dim=1)
        objectness = F.interpolate(dense.objectness.float(), logits.shape[2:])
        doubtful = doubtful_patches(prob, objectness)
        behind = self.decide.words_of(self.classes.background)
        return logits.masked_fill(doubtful[:, None] & behind[:, None, None], 1.0)

    def _presence(self, dense: DenseFeatures, logits: Tensor) -> Tensor | None:
        """What speaks for each class in each window: [B, C], or None where nobody asks."""
        if not self.settings.presence:
            return None
        whole = None if dense.whole is None else dense.whole[:, :, None, None]
        return presence(
            logits,
            F.interpolate(dense.tokens.float(), logits.shape[2:]),
            None if whole is None else self.reader.logits(whole, self.text_embeds)[:, :, 0, 0],
            self.classes.query_to_class,
            scale=self.settings.refine_scale,
        )

    def _label(self, picture: Prepared, maps: ScoreMaps) -> Segmentation:
        classes, repeat = self.classes, self.settings.protocol.upsample == "labels"
        size = (picture.resized.shape[0], picture.resized.shape[1]) if repeat else picture.size
        pixels = torch.from_numpy(picture.resized).to(self.device).permute(2, 0, 1)
        change = self.change(pixels, size, picture.saliency)
        labels, scores, reduced = self.decide(maps, size, change)

        def class_scores(class_id: int) -> NDArray[np.float32]:
            with torch.inference_mode():
                found = self.decide.class_map(maps, reduced, class_id, change)
                return resize_nearest(found.cpu().numpy(), picture.size)

        narrow = ignore_value(len(classes)) < 256
        found = labels.cpu().numpy().astype(np.uint8 if narrow else np.uint16, copy=False)
        return Segmentation(
            labels=resize_nearest(found, picture.size),
            scores=resize_nearest(scores.cpu().numpy(), picture.size),
            classes=classes,
            image=picture.image,
            class_scores=class_scores if self.class_scores else None,
        )

    def change(
        self, pixels: Tensor, size: tuple[int, int], saliency: NDArray[np.float32] | None = None
    ) -> TileChange | None:
        """What happens to the scores of a picture at full size: PAMR, then the fusion with its saliency.

        Args:
            pixels: uint8 RGB [3, h, w] at network size, where the network is.
            size: (H, W) of the labels.
            saliency: [h, w] in [0, 1] from a file; None asks the network that finds the foreground, if there is one.
        """
        changes: list[TileChange] = []
        if self.settings.pamr:
            look = stretched(self.normalise(pixels), size)
            changes.append(PixelAdaptive(look, PAMR_DILATIONS, self.settings.pamr))
        found = None
        if saliency is not None:
            found = torch.from_numpy(saliency).to(self.device)[None]
        elif self.saliency is not None:
            found = self.saliency(pixels[None].float() / 255)[0]
        if found is not None:
            behind = self.decide.words_of(self.classes.background or 0)
            changes.append(SaliencyFusion(stretched(found, size), behind))
        return Changes(changes) if changes else None

    def describe(self) -> dict[str, object]:
        """The settings in force, for the record beside the results; of other networks their fingerprints."""
        beside = {"guide": self.guide, "saliency": self.saliency}
        prints = {name: network.fingerprint for name, network in beside.items() if network is not None}
        return {**dataclasses.asdict(self.settings), **({"beside": prints} if prints else {})}


def _windows_of(image: Tensor, windows: Sequence[Window]) -> list[Tensor]:
    """[3, H, W] -> [3, h, w] each."""
    return [image[:, window.slices[0], window.slices[1]] for window in windows]
