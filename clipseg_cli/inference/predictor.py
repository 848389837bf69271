"""The one inference loop: images in, label maps out. Every command and the Python API go through `Predictor._labelled`.

Letters: H, W pixels; h, w patches; Q words; C classes; P parts (windows or crops) of an image.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import torch

from clipseg_cli.config import NO_SALIENCY, Protocol
from clipseg_cli.inference.auxiliary import require_background, saliency_folder
from clipseg_cli.inference.decide import ClassMaps, decide
from clipseg_cli.inference.encode import Batches, encode
from clipseg_cli.inference.hyperparameters import Chosen
from clipseg_cli.inference.parts import Batch, DeviceImage, Labelled, Parts, Stack, cut, stacks_of
from clipseg_cli.inference.prepare import Prepared, prepare
from clipseg_cli.inference.results import finish, label_type
from clipseg_cli.inference.settings import find_protocol, resolve_settings
from clipseg_cli.inference.steps import plan_steps, values_of
from clipseg_cli.inference.tiling import MultiScaleCrops, plan_tiling
from clipseg_cli.models.auxiliary.stages import with_stages
from clipseg_cli.ops.reduce import images_at_once
from clipseg_cli.types import Context, Reading, Segmentation, WindowBatch, Words
from clipseg_cli.utils.transfer import Download, upload

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.inference.expert_classifier import Experts
    from clipseg_cli.inference.kept import Keeper
    from clipseg_cli.inference.regions import Regions
    from clipseg_cli.models.auxiliary.saliency import Saliency
    from clipseg_cli.models.auxiliary.stages import Stages
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
        stages: of a network beside the tower; levels begin with them.
        asked: of "levels" and "values", what the reader hands out beyond what steps need, where a memory is made.
        chosen: what `--set` says of refinements.

    Attributes:
        saliency_name: what `config.saliency` means for these classes.
        steps: the refinements that are on.
        experts: classifiers that speak for single classes, or None.
        keeper: rounds features and hands them out, where features are kept; or None.
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
        stages: Stages | None = None,
        asked: Collection[str] = (),
        chosen: Chosen | None = None,
    ) -> None:
        protocol, chosen = protocol or find_protocol(config.protocol), chosen or Chosen()
        self.saliency_name = config.saliency_name(classes.background is not None)
        if self.saliency_name == NO_SALIENCY:  # "auto", of classes without a background
            saliency = None
        self.guide, self.saliency, self.regions = guide, saliency, regions
        self.recall, self.bank, self.saliency_maps = recall, bank, saliency_folder(config)
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
        values = "values" in wanted and guide is None and (bank is None or bank.key_encoder is None)
        out = ("keys" in wanted, guide, -mean / std, "whole" in wanted, "levels" in wanted)
        more = (values, "attention" in wanted, in_sight, config.compile)
        self.reader = backbone.reader(method, Reading(protocol.activation, protocol.ln_eps, *out, *more))
        pyramid = method.pyramid if method is not None else None
        self.stages = stages if "levels" in wanted else None
        self.reader = with_stages(self.reader, self.stages)
        self.settings = s = resolve_settings(config, protocol, backbone, self.reader.patch, pyramid)
        self.tiling = plan_tiling(s, pyramid, backbone.image_size)
        class_of = torch.tensor(classes.query_to_class, device=device, dtype=label_type(classes)[1])
        self.words = Words(classes, class_of, s.refine_scale, text_embeds)
        self.classes, self.text_embeds, self.device, self.dtype = classes, text_embeds, device, dtype
        self.batches, self.class_scores = Batches(config.batch_size), class_scores
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
        regions = self.regions if self.regions is not None and self.regions.threaded else None
        return prepare(image, self.settings, self.tiling, self.saliency_maps, regions, size)

    def predict(
        self, images: Sequence[Prepared], *, class_scores: bool | None = None
    ) -> Iterator[Segmentation]:
        """Label maps of some images, in order; see `launch`."""
        for wait in self.launch(images, class_scores=class_scores):
            yield wait()

    @torch.inference_mode()
    def launch(
        self, images: Sequence[Prepared], *, class_scores: bool | None = None
    ) -> Iterator[Callable[[], Segmentation]]:
        """Have some images labelled; what comes out, in order, waits for the label map. Their windows share batches.

        Nothing here waits for an accelerator, so that other images can be launched meanwhile. Only small maps are kept
        for all images; those at full size come one by one, or as many as a tile has room for.

        Args:
            images: made by `prepare`.
            class_scores: hand out maps of single classes; None: as this predictor was made.
        """
        wanted = self.class_scores if class_scores is None else class_scores
        ready: dict[int, Callable[[], Segmentation]] = {}
        following = 0
        for labelled in self._labelled(self.to_device(images), class_scores=wanted):
            download = Download((labelled.decision.confidence, labelled.decision.labels))
            for row, number in enumerate(labelled.stack.numbers):
                ready[number] = partial(finish, images[number], labelled, row, download, self.classes)
            while following in ready:
                yield ready.pop(following)
                following += 1

    def to_device(self, images: Sequence[Prepared]) -> list[DeviceImage]:
        """Some images on the device of the network, with their regions."""
        if not all(one.stored for one in images):  # a batch goes through the network as a whole or not at all
            images = [dataclasses.replace(one, stored=None) for one in images]
        pixels = upload([one.resized for one in images], self.device)
        each = zip(images, pixels, self._region_ids(images), strict=True)
        small = self.settings.protocol.upsample == "labels"
        return [DeviceImage.of(*one, at_network_size=small) for one in each]

    @torch.no_grad()
    def labels(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Class ids [B, H, W] of images that are on the device of the network, at network size already.

        Args:
            images: uint8 RGB [B, 3, h, w].
            size: (H, W) of the labels.
        """
        windows = self.tiling.windows((images.shape[2], images.shape[3]))
        on_device = []
        for image in images:
            crops, ids, pixels = None, None, image.permute(1, 2, 0)
            if isinstance(self.tiling, MultiScaleCrops):
                crops = self.tiling.crops(pixels.cpu().numpy())
            if self.regions is not None:
                ids = torch.from_numpy(self.regions.of_pixels(pixels.cpu().numpy())).to(self.device)
            on_device.append(DeviceImage(image, windows, size, crops, {}, ids))
        return torch.cat([one.decision.labels.view(-1, *size) for one in self._labelled(on_device)])

    def _labelled(self, images: Sequence[DeviceImage], *, class_scores: bool = False) -> Iterator[Labelled]:
        """The loop: tiles through the network, merged and refined step by step, decided."""
        before, after = self.steps.around_merging(self.tiling.refines_windows)
        stacks = stacks_of(images, self._room)
        for stack, parts in zip(stacks, self._encode(stacks), strict=True):
            context = self._context(stack, parts)
            maps = parts.windows()
            for step in self.steps.graph:
                maps = step.spread(maps, context)
            for step in before:
                maps = [step(one, context) for one in maps]
            merged = self.tiling.merge(maps, stack.windows, context.paddings, stack.network_size)
            for step in after:
                merged = step(merged, context)
            decision = decide(merged, context, self.settings.background_threshold, totals=class_scores)
            total = decision.log_total
            class_maps = None if total is None else ClassMaps.of(merged, context, stack.split(total))
            for step in self.steps.labels:
                labels, confidence = step.relabel(decision.labels, decision.confidence, context)
                decision = decision._replace(labels=labels, confidence=confidence)
            yield Labelled(stack, decision, class_maps, parts.kept)

    def _room(self, image: DeviceImage) -> int:
        """How many images like this one may go through the loop together."""
        if not self.steps.together or image.auxiliary or image.regions is not None:
            return 1
        sizes = [image.size]
        if self.tiling.refines_windows:  # maps of windows are merged at the size of the network
            sizes.append((image.pixels.shape[1], image.pixels.shape[2]))
        return min(images_at_once(len(self.text_embeds), size, self.device) for size in sizes)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB [..., 3, H, W] -> what the network takes."""
        return (images.float() - self.mean) / self.std

    def _region_ids(self, images: Sequence[Prepared]) -> Sequence[NDArray[np.int32] | None]:
        """The id map of each image, made by a thread already, or here by a network; None where none is asked for."""
        if self.regions is None or self.regions.threaded:
            return [one.auxiliary.get("regions") for one in images]
        return self.regions.in_batches([one.image for one in images], self.batches.size)

    def _encode(self, stacks: Sequence[Stack]) -> list[Parts]:
        """What the network says of the tiles of each stack."""
        crops = [cut(one, self.normalise, regions=self.reads_regions) for one in stacks]
        return encode(stacks, crops, self.batches, self._read)

    def read(self, images: Tensor, regions: Tensor | None = None) -> DenseFeatures:
        """What the network says of normalised images [B, 3, H, W], in the precision in which it computes."""
        if self.dtype == torch.float32:
            return self.reader(images, regions)
        with torch.autocast(self.device.type, self.dtype):
            return self.reader(images, regions)

    def _read(self, batch: Batch) -> Parts:
        """One batch through the network, and the steps right behind it."""
        images, ids, stored = batch
        keeper = self.keeper
        dense, kept = (
            keeper.dense(stored, lambda: self.read(images, ids)) if keeper else (self.read(images, ids), [])
        )
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
            windows = dataclasses.replace(windows, logits=step.refine_windows(windows, self.words))
        return Parts(
            windows.logits,
            dense.padding,
            None if dense.keys is None else dense.keys.float(),
            recalled,
            {step.name: step.observe(windows, self.words) for step in self.steps.observing},
            kept,
        )

    def _context(self, stack: Stack, parts: Parts) -> Context:
        """What the steps of images may look at; auxiliary networks see each once, and as a whole."""
        image, pixels = stack.images[0], partial(stack.joined, [one.pixels for one in stack.images])
        auxiliary = {
            name: torch.from_numpy(found).to(self.device)[None]
            for name, found in image.auxiliary.items()
            if name != "regions"
        }
        if image.regions is not None:
            auxiliary["regions"] = image.regions[None]
        if self.steps.need("saliency") and "saliency" not in auxiliary and self.saliency is not None:
            each = [self.saliency(one.pixels[None].float() / 255)[0] for one in stack.images]
            auxiliary["saliency"] = stack.joined(each)
        return Context(
            self.words,
            lambda: self.normalise(pixels()),
            lambda: pixels().float() / 255,
            image.size,
            self.settings.softmax_scale,
            self.settings.protocol.key_norm,
            parts.observed,
            auxiliary,
            image.tiles,
            [parts.padding] * len(image.windows),
            guided=self.guide is not None,
            recall=self.recall,
            bank=self.bank,
        )

    def describe(self) -> dict[str, object]:
        """The settings in force, for the record beside the results; of auxiliary networks their fingerprints."""
        networks, memory = {"guide": self.guide, "saliency": self.saliency}, self.recall or self.bank
        prints = {name: network.fingerprint for name, network in networks.items() if network is not None}
        parts = {
            "refinements": [step.describe() for step in self.steps],
            "stages": None if self.stages is None else self.stages.fingerprint,
            "experts": None if self.experts is None else self.experts.describe(),
            "regions": None if self.regions is None else dict(self.regions.made_by),
            "memory": None if memory is None else dict(memory.facts),
            "auxiliary": prints or None,
        }
        return {**dataclasses.asdict(self.settings), **{k: v for k, v in parts.items() if v is not None}}
