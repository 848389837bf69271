"""The one inference loop: images in, label maps out. Every command and the Python API go through `Predictor._labelled`.

Letters: H, W pixels; h, w patches; Q words; C classes; P parts (windows or crops) of an image.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipseg_cli.config import NO_SALIENCY, Protocol, ignore_value
from clipseg_cli.data.images import resize_nearest
from clipseg_cli.inference.auxiliary import require_background, saliency_folder
from clipseg_cli.inference.decide import ClassMaps, decide
from clipseg_cli.inference.hyperparameters import Chosen
from clipseg_cli.inference.kept import on_cpu
from clipseg_cli.inference.parts import Batch, Crop, Labelled, Part, Picture, batches, cut
from clipseg_cli.inference.prepare import Prepared, prepare
from clipseg_cli.inference.settings import find_protocol, resolve_settings
from clipseg_cli.inference.steps import plan_steps, values_of
from clipseg_cli.inference.tiling import MultiScaleCrops, SlidingWindows
from clipseg_cli.types import Context, LogitMaps, Reading, Segmentation, WindowBatch, Words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.inference.expert_classifier import Experts
    from clipseg_cli.inference.kept import Keeper
    from clipseg_cli.inference.regions import Regions
    from clipseg_cli.inference.tiling import Tiling
    from clipseg_cli.models.auxiliary.saliency import Saliency
    from clipseg_cli.types import (
        ClassList,
        DecodedImage,
        DenseFeatures,
        DenseModel,
        Guide,
        Method,
        Recall,
        RegionBank,
    )


class Predictor:
    """A network, a method and a list of words, ready to label images.

    Args:
        backbone: a frozen CLIP, or a student.
        method: how a CLIP is read; None for a student.
        classes: what the labels mean.
        text_embeds: [Q, D] one unit vector for each word of `classes.queries`.
        config: the user's options.
        device, dtype: where and in what precision the tower computes; logits are always float32.
        protocol: None finds it by `config.protocol`.
        class_scores: hand out the map of any single class too.
        guide: the auxiliary network of a method that asks for one.
        saliency: finds the foreground, for `config.saliency`.
        regions: makes id maps, for `config.regions`.
        recall, bank: what a memory of labelled images taught, or one of unlabelled images, for `config.memory`.
        asked: of "levels" and "values", what the reader hands out beyond what steps need, for one who makes a memory.
        chosen: what `--set` says of refinements.

    Attributes:
        saliency_name: what `config.saliency` means for these classes.
        steps: the refinements that are on.
        experts: classifiers that speak for single classes, or None.
        keeper: rounds features and hands them out, for one who keeps them; or None.
        notes: what a user should be told of what was chosen for them.
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
        regions: Regions | None = None,
        recall: Recall | None = None,
        bank: RegionBank | None = None,
        asked: Collection[str] = (),
        chosen: Chosen | None = None,
    ) -> None:
        protocol, chosen = protocol or find_protocol(config.protocol), chosen or Chosen()
        self.saliency_name = config.saliency_name(classes.background is not None)
        if self.saliency_name == NO_SALIENCY:  # "auto", of classes without a background
            saliency = None
        self.guide, self.saliency, self.regions = guide, saliency, regions
        self.recall, self.bank = recall, bank
        self.saliency_maps = saliency_folder(config)
        self.reads_regions = method is not None and method.read_regions is not None
        require_background(config, classes)
        guided = guide is not None and method is not None and bool(method.guided)
        options = values_of(config, protocol, chosen, self.saliency_name, guided=guided)
        self.steps = plan_steps(options, chosen.hyperparameters, background=classes.background is not None)
        mean, std = (
            torch.tensor(v, device=device)
            for v in (protocol.mean or backbone.mean, protocol.std or backbone.std)
        )
        wanted = {name for step in self.steps for name in step.refinement.needs}.union(asked)
        in_sight = text_embeds if method is not None and method.read_twice is not None else None
        values = "values" in wanted and guide is None and (bank is None or bank.look is None)
        out = ("keys" in wanted, guide, -mean / std, "whole" in wanted, "levels" in wanted)
        more = (values, "attention" in wanted, in_sight)
        self.reader = backbone.reader(method, Reading(protocol.activation, protocol.ln_eps, *out, *more))
        pyramid = method.pyramid if method is not None else None
        self.settings = s = resolve_settings(config, protocol, backbone, self.reader.patch, pyramid)
        self.tiling: Tiling = (
            SlidingWindows(s.window, s.stride, s.cell)
            if pyramid is None
            else MultiScaleCrops(pyramid, backbone.image_size, published=protocol.square)
        )
        # The type of the label map itself, so that a 12-megapixel map is never held as int64.
        narrow = ignore_value(len(classes)) < 256
        self._label_type = np.uint8 if narrow else np.uint16
        class_of = torch.tensor(
            classes.query_to_class, device=device, dtype=torch.uint8 if narrow else torch.int32
        )
        self.words = Words(classes, class_of, s.refine_scale, text_embeds)
        self.classes, self.text_embeds, self.device, self.dtype = classes, text_embeds, device, dtype
        self.batch_size, self.class_scores = config.batch_size, class_scores
        self.experts: Experts | None = None
        self.keeper: Keeper | None = None
        self.notes: tuple[str, ...] = ()
        self.mean, self.std = mean.view(3, 1, 1) * 255, std.view(3, 1, 1) * 255

    def prepare(self, image: DecodedImage, size: tuple[int, int] | None = None) -> Prepared:
        """Resize and plan the windows; touches no model, so that a thread can do it.

        Args:
            image: as it was decoded.
            size: (H, W) of the label map to make; None is the image's own.
        """
        beside = self.regions if self.regions is not None and self.regions.beside else None
        return prepare(image, self.settings, self.tiling, self.saliency_maps, beside, size)

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Prepared], *, class_scores: bool | None = None
    ) -> Iterator[Segmentation]:
        """Label maps of some images, in order; their windows share batches.

        Only small maps are kept for all images; those at full size come one by one.

        Args:
            images: made by `prepare`.
            class_scores: hand out maps of single classes; None: as this predictor was made.
        """
        wanted = self.class_scores if class_scores is None else class_scores
        found = self._labelled(self.pictures(images), class_scores=wanted)
        for one, labelled in zip(images, found, strict=True):
            yield self._segmentation(one, labelled)

    def pictures(self, images: Sequence[Prepared]) -> list[Picture]:
        """Some images where the network is, with their regions."""
        repeat = self.settings.protocol.upsample == "labels"
        if not all(one.stored for one in images):  # a batch goes through the network as a whole or not at all
            images = [dataclasses.replace(one, stored=None) for one in images]
        both = zip(images, self._region_ids(images), strict=True)
        return [Picture.of(one, ids, self.device, at_network_size=repeat) for one, ids in both]

    @torch.no_grad()
    def labels(self, images: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
        """Class ids [H, W] of images that are where the network is, at network size already.

        Args:
            images: uint8 RGB [B, 3, h, w].
            size: (H, W) of the labels.
        """
        windows = self.tiling.windows((images.shape[2], images.shape[3]))
        pictures = []
        for image in images:
            crops, ids, pixels = None, None, image.permute(1, 2, 0)
            if isinstance(self.tiling, MultiScaleCrops):
                crops = self.tiling.crops(pixels.cpu().numpy())
            if self.regions is not None:
                ids = torch.from_numpy(self.regions.of_pixels(pixels.cpu().numpy())).to(self.device)
            pictures.append(Picture(image, windows, size, crops, {}, ids))
        for labelled in self._labelled(pictures):
            yield labelled.decision.labels

    def _labelled(self, pictures: Sequence[Picture], *, class_scores: bool = False) -> Iterator[Labelled]:
        """The loop: tiles through the network, merged and refined step by step, decided."""
        before, after = self.steps.around_merging(self.tiling.refines_windows)
        regions = self.reads_regions
        parts = iter(self._encode([c for one in pictures for c in cut(one, self.normalise, regions=regions)]))
        for picture in pictures:
            own = list(islice(parts, len(picture.windows)))
            context = self._context(picture, own)
            maps = [part.maps for part in own]
            for step in self.steps.graph:
                maps = step.spread(maps, context)
            for step in before:
                maps = [step(one, context) for one in maps]
            size = (picture.pixels.shape[1], picture.pixels.shape[2])
            merged = self.tiling.merge(maps, picture.windows, [part.overhang for part in own], size)
            for step in after:
                merged = step(merged, context)
            decision = decide(merged, context, self.settings.background_threshold, totals=class_scores)
            total = decision.log_total
            class_maps = None if total is None else ClassMaps(merged, context, total)
            for step in self.steps.labels:
                labels, confidence = step.relabel(decision.labels, decision.confidence, context)
                decision = decision._replace(labels=labels, confidence=confidence)
            yield Labelled(decision, class_maps, [part.kept for part in own])

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB [..., 3, H, W] -> what the network takes."""
        return (images.float() - self.mean) / self.std

    def _region_ids(self, images: Sequence[Prepared]) -> Sequence[NDArray[np.int32] | None]:
        """The id map of each image, made by a thread already, or here by a network; None where none is asked for."""
        if self.regions is None or self.regions.beside:
            return [one.auxiliary.get("regions") for one in images]
        return self.regions.in_batches([one.image for one in images], self.batch_size)

    def _encode(self, crops: Sequence[Crop]) -> list[Part]:
        """Tiles of any shape, in batches of one shape, through the network."""
        found: dict[int, Part] = {}
        for batch in batches(crops, self.batch_size):
            found.update(zip(batch, self._read([crops[i] for i in batch]), strict=True))
        return [found[i] for i in range(len(crops))]

    def read(self, images: Tensor, regions: Tensor | None = None) -> DenseFeatures:
        """What the network says of normalised images [B, 3, H, W], in the precision in which it computes."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.reader(images, regions)

    def _read(self, crops: Sequence[Crop]) -> Iterator[Part]:
        """One batch through the network, and the steps right behind it."""
        images, ids = Batch.of(crops)
        if self.keeper is None:
            dense, kept = self.read(images, ids), None
        else:
            dense, kept = self.keeper.dense([c.stored for c in crops], lambda: self.read(images, ids))
        logits = self.reader.logits(dense.features, self.text_embeds)
        if self.experts is not None:
            logits = self.experts.cosines(dense.features, self.reader, self.words)
        whole = None
        if dense.whole is not None:
            whole = self.reader.logits(dense.whole[:, :, None, None], self.text_embeds)[:, :, 0, 0]
        recalled = None
        if self.recall is not None and dense.levels is not None:
            recalled = self.recall.read(dense.levels)
        windows = WindowBatch(logits, dense, whole, images, getattr(self.reader, "whole", None))
        for step in self.steps.window:
            windows = dataclasses.replace(windows, logits=step.change(windows, self.words))
        observed = {step.name: step.observe(windows, self.words) for step in self.steps.observing}
        for row in range(len(images)):
            yield Part(
                LogitMaps(
                    (windows.logits[row],),
                    keys=None if dense.keys is None else dense.keys[row].float(),
                    memory=None if recalled is None else recalled[row],
                ),
                dense.overhang,
                {name: values[row] for name, values in observed.items()},
                None if kept is None else kept[row],
            )

    def _context(self, picture: Picture, parts: Sequence[Part]) -> Context:
        """What the steps of an image may look at; auxiliary networks see it once, and as a whole."""
        observed = {
            step.name: torch.stack([part.observed[step.name] for part in parts])
            for step in self.steps.observing
        }
        auxiliary = {
            name: torch.from_numpy(found).to(self.device)[None]
            for name, found in picture.auxiliary.items()
            if name != "regions"
        }
        if picture.regions is not None:
            auxiliary["regions"] = picture.regions[None]
        if self.steps.need("saliency") and "saliency" not in auxiliary and self.saliency is not None:
            auxiliary["saliency"] = self.saliency(picture.pixels[None].float() / 255)[0]
        return Context(
            self.words,
            partial(self.normalise, picture.pixels),
            lambda: picture.pixels.float() / 255,
            picture.size,
            self.settings.softmax_scale,
            self.settings.protocol.key_norm,
            observed,
            auxiliary,
            picture.tiles,
            [part.overhang for part in parts],
            guided=self.guide is not None,
            recall=self.recall,
            bank=self.bank,
        )

    def _segmentation(self, one: Prepared, labelled: Labelled) -> Segmentation:
        """The label map of an image at its own size, on the CPU."""
        size, make = one.size, labelled.class_maps

        def map_of(class_id: int) -> NDArray[np.float32]:
            assert make is not None
            with torch.inference_mode():
                return resize_nearest(make(class_id).cpu().numpy(), size)

        labels, confidence = labelled.decision.labels.cpu().numpy(), labelled.decision.confidence
        return Segmentation(
            labels=resize_nearest(labels.astype(self._label_type, copy=False), size),
            scores=resize_nearest(confidence.cpu().numpy(), size),
            classes=self.classes,
            image=one.image,
            class_scores=None if make is None else map_of,
            features=on_cpu(labelled.kept),
        )

    def describe(self) -> dict[str, object]:
        """The settings in force, for the record beside the results; of auxiliary networks their fingerprints."""
        networks = {"guide": self.guide, "saliency": self.saliency}
        prints = {name: network.fingerprint for name, network in networks.items() if network is not None}
        settings = dataclasses.asdict(self.settings)
        settings["refinements"] = [step.describe() for step in self.steps]
        if self.experts is not None:
            settings["experts"] = self.experts.describe()
        if self.regions is not None:
            settings["regions"] = dict(self.regions.made_by)
        for memory in (self.recall, self.bank):
            if memory is not None:
                settings["memory"] = dict(memory.facts)
        return {**settings, **({"auxiliary": prints} if prints else {})}
