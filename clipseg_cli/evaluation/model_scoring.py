"""A model's labels against ground truth, picture by picture, as one confusion matrix for each condition."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import torch

from clipseg_cli.data.corruptions import corrupt
from clipseg_cli.data.datasets import read_label
from clipseg_cli.data.images import read_image, resize_labels
from clipseg_cli.errors import ClipsegError
from clipseg_cli.evaluation.scoring import (
    CLEAN,
    Condition,
    ScoredImage,
    Scoring,
    size_to_score,
)
from clipseg_cli.inference.dataset import cut_into_groups
from clipseg_cli.inference.stream import Stream
from clipseg_cli.ops.metrics import confusion_matrix
from clipseg_cli.outputs import thumbnail
from clipseg_cli.runs.provenance import model_notes
from clipseg_cli.utils.device import describe_device

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from clipseg_cli.config import EvalConfig, Protocol
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.types import Dataset, DecodedImage, DenseModel, Sample, Segmentation
    from clipseg_cli.utils.distributed import Share


class ModelScoring(Scoring):
    """A prepared evaluation; iterating it labels and scores every picture of this process's share.

    Attributes:
        device, model: for people.
        total: pictures of this share, times conditions.
    """

    def __init__(
        self,
        config: EvalConfig,
        dataset: Dataset,
        protocol: Protocol,
        templates: Sequence[str],
        backbone: DenseModel,
        predictor: Predictor,
        unseen: tuple[int, ...],
        conditions: tuple[Condition, ...],
        share: Share,
        out: Path,
    ) -> None:
        super().__init__(
            config,
            dataset,
            protocol,
            unseen=unseen,
            conditions=conditions,
            share=share,
            notes=(*dataset.notes, *model_notes(backbone, predictor.classes)),
            images=len(dataset.samples),
            out=out,
        )
        self.templates, self.backbone, self.predictor = templates, backbone, predictor
        self.device = describe_device(predictor.device, predictor.dtype)
        self.model = f"{backbone.name} / {backbone.pretrained}"
        groups = cut_into_groups(dataset.samples, config.batch_size)
        self._groups = share.of(
            [
                [(condition, sample) for sample in samples]
                for condition in range(len(conditions))
                for _, samples in groups
            ]
        )
        self.total = sum(map(len, self._groups))

    def __iter__(self) -> Generator[ScoredImage, None, None]:
        """Pictures in the order of the list, condition by condition.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
        """
        stream: Stream[tuple[int, Sample], ScoredImage] = Stream(
            self.predictor,
            read=self._read,
            finish=self._score,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
        )
        for result in stream.reproducible(self._groups):
            yield self._add(result)

    def _read(self, item: tuple[int, Sample]) -> Prepared | ScoredImage:
        number, sample = item
        try:
            image = self._decode(sample, self.conditions[number])
            height, width = image.pixels.shape[:2]
            size = size_to_score(height, width, self.protocol)
            return self.predictor.prepare(image, size)
        except ClipsegError as error:
            return ScoredImage(str(sample.source.relative), number, error=error)

    def _decode(self, sample: Sample, condition: Condition) -> DecodedImage:
        image = read_image(sample.source, max_megapixels=self.config.max_megapixels)
        if condition.corruption is None:
            return image
        key = sample.source.relative.as_posix()
        pixels = corrupt(
            image.pixels, condition.corruption, condition.severity, seed=self.config.seed, key=key
        )
        return dataclasses.replace(image, pixels=pixels)

    def _score(self, item: tuple[int, Sample], result: Segmentation) -> ScoredImage:
        number, sample = item
        name = str(sample.source.relative)
        try:
            height, width = result.image.pixels.shape[:2]
            truth = read_label(sample, self.dataset, (height, width))
        except ClipsegError as error:
            return ScoredImage(name, number, error=error)
        truth = resize_labels(truth, (result.labels.shape[0], result.labels.shape[1]))
        to_device = partial(torch.Tensor.to, device=self.predictor.device)
        with torch.inference_mode():
            labels = to_device(torch.from_numpy(result.labels))
            matrix = confusion_matrix(labels, to_device(torch.from_numpy(truth)), len(self.dataset.classes))
        return ScoredImage(name, number, matrix)

    def corrupted_examples(self) -> list[tuple[str, list[NDArray[np.uint8]]]]:
        """A small picture under each corruption, in all severities asked for, the clean one first.

        It is the first one that could be scored; nothing where none could.
        """
        sample = next((s for s in self.dataset.samples if str(s.source.relative) not in self.failures), None)
        rows: dict[str, list[NDArray[np.uint8]]] = {}
        if sample is not None:
            clean = thumbnail(self._decode(sample, CLEAN).pixels)
            for condition in self.conditions[1:]:
                row = rows.setdefault(condition.corruption or "", [clean])
                row.append(thumbnail(self._decode(sample, condition).pixels))
        return list(rows.items())
