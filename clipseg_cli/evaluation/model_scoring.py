"""A model's labels against ground truth, image by image, as one confusion matrix for each condition."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from clipseg_cli.data.corruptions import corrupt
from clipseg_cli.data.datasets import read_label
from clipseg_cli.data.images import read_image, resize_labels
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
from clipseg_cli.utils.device import describe_device

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from clipseg_cli.errors import ClipsegError
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.types import DecodedImage, DenseModel, Sample, Segmentation


@dataclass(eq=False, kw_only=True)
class ModelScoring(Scoring):
    """A prepared evaluation; iterating it labels and scores every image of this process's share.

    Attributes:
        templates: sentences around each word.
        backbone: a CLIP, or a student.
        predictor: the loop over it.
        device, model: for people.
        total: images of this share, times conditions.
    """

    templates: Sequence[str]
    backbone: DenseModel
    predictor: Predictor

    def __post_init__(self) -> None:
        super().__post_init__()
        self.device = describe_device(self.predictor.device, self.predictor.dtype)
        self.model = f"{self.backbone.name} / {self.backbone.pretrained}"
        groups = [samples for _, samples in cut_into_groups(self.dataset.samples, self.config.batch_size)]
        conditions = range(len(self.conditions))
        self._groups = self.share.of(
            [[(c, sample) for sample in group] for c in conditions for group in groups]
        )
        self.total = sum(map(len, self._groups))

    def __iter__(self) -> Generator[ScoredImage, None, None]:
        """Images in the order of the list, condition by condition.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
        """
        stream = Stream(self.predictor, self.config, self._read, self._score, self._failed)
        for result in stream.reproducible(self._groups):
            yield self._add(result)

    def _read(self, item: tuple[int, Sample]) -> Prepared | ScoredImage:
        number, sample = item
        image = self._decode(sample, self.conditions[number])
        height, width = image.pixels.shape[:2]
        return self.predictor.prepare(image, size_to_score(height, width, self.protocol))

    def _failed(self, item: tuple[int, Sample], error: ClipsegError) -> ScoredImage:
        return ScoredImage(item[1].source.name, item[0], error=error)

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
        height, width = result.image.pixels.shape[:2]
        truth = read_label(sample, self.dataset, (height, width))
        truth = resize_labels(truth, (result.labels.shape[0], result.labels.shape[1]))
        to_device = partial(torch.Tensor.to, device=self.predictor.device)
        with torch.inference_mode():
            labels = to_device(torch.from_numpy(result.labels))
            matrix = confusion_matrix(labels, to_device(torch.from_numpy(truth)), len(self.dataset.classes))
        return ScoredImage(sample.source.name, number, matrix)

    def corrupted_examples(self) -> list[tuple[str, list[NDArray[np.uint8]]]]:
        """A small image under each corruption, in all severities asked for, the clean one first.

        It is the first one that could be scored; nothing where none could.
        """
        sample = next((s for s in self.dataset.samples if s.source.name not in self.failures), None)
        rows: dict[str, list[NDArray[np.uint8]]] = {}
        if sample is not None:
            clean = thumbnail(self._decode(sample, CLEAN).pixels)
            for condition in self.conditions[1:]:
                row = rows.setdefault(condition.corruption or "", [clean])
                row.append(thumbnail(self._decode(sample, condition).pixels))
        return list(rows.items())
