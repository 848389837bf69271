"""`clipseg eval`: label maps against ground truth, picture by picture, as one confusion matrix for each condition."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipseg_cli.data.corruptions import SEVERITIES, corrupt, parse_corruptions
from clipseg_cli.data.datasets import read_label
from clipseg_cli.data.images import read_image, resize_labels
from clipseg_cli.errors import ClipsegError, UsageError
from clipseg_cli.ops.metrics import confusion_matrix, score
from clipseg_cli.outputs import thumbnail
from clipseg_cli.pipelines.about import model_notes
from clipseg_cli.pipelines.data import cut_into_groups, open_data, unseen_ids
from clipseg_cli.pipelines.load import plan_model
from clipseg_cli.pipelines.stream import Stream
from clipseg_cli.utils.device import describe_device
from clipseg_cli.utils.distributed import gather_from_ranks, process_share, rendezvous, sum_over_ranks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.config import EvalConfig, Protocol
    from clipseg_cli.models.backbones import Backbone
    from clipseg_cli.ops.metrics import Scores
    from clipseg_cli.pipelines.load import ModelPlan
    from clipseg_cli.pipelines.predict import Predictor, Prepared
    from clipseg_cli.types import Dataset, DecodedImage, Sample, Segmentation
    from clipseg_cli.utils.distributed import Share


@dataclass(frozen=True)
class Condition:
    """In what state the pictures are scored.

    Attributes:
        corruption: its name, or None for the pictures as they are.
        severity: 1 to 5; 0 for the pictures as they are.
    """

    corruption: str | None = None
    severity: int = 0

    def __str__(self) -> str:
        return "clean" if self.corruption is None else f"{self.corruption} {self.severity}"


CLEAN = Condition()


@dataclass(frozen=True)
class ScoredImage:
    """What became of one picture under one condition.

    Attributes:
        image: its name in the data set.
        matrix: [C, C + 1] int64, see `ops.metrics`; None if it failed.
        error: why it failed.
    """

    image: str
    condition: int
    matrix: Tensor | None = None
    error: ClipsegError | None = None


@contextmanager
def open_evaluation(config: EvalConfig) -> Iterator[Evaluation]:
    """Check every option, find the data set, load the model.

    Raises:
        ClipsegError: anything wrong with options, data set or model.
    """
    share = process_share()
    conditions = plan_conditions(config)
    dataset, protocol = open_data(config, "score")
    unseen = unseen_ids(dataset, config.unseen)
    plan = plan_model(config, protocol)
    with ExitStack() as stack:
        stack.enter_context(rendezvous(share))
        backbone, predictor = plan.load(dataset.classes)
        yield Evaluation(config, dataset, protocol, plan, backbone, predictor, unseen, conditions, share)


def plan_conditions(config: EvalConfig) -> tuple[Condition, ...]:
    """The pictures as they are, and then every corruption in every severity.

    Raises:
        UsageError: an unknown corruption or severity.
    """
    if not config.severity:
        raise UsageError("--severity names none", hint="it counts upwards, as in 1..5")
    for severity in config.severity:
        if severity not in SEVERITIES:
            raise UsageError(
                f"severity {severity}: there are 1 to {SEVERITIES[-1]}", hint="1 is mild, 5 is strong"
            )
    names = parse_corruptions(config.corrupt)
    if config.corrupt and not names:
        raise UsageError("--corrupt is empty", hint="name a corruption, or all")
    return (CLEAN, *(Condition(name, severity) for name in names for severity in config.severity))


class Scoring:
    """Pixels counted so far, under every condition; the processes of torchrun add theirs up.

    Attributes:
        dataset: what is scored.
        unseen: ids of the unseen classes of a zero-shot split; may be empty.
        notes: what a user should be told once.
        images: pictures to be scored, over all shares.
        failures: picture -> why it could not be scored; of all shares after `matrices`.
    """

    def __init__(
        self,
        config: EvalConfig,
        dataset: Dataset,
        protocol: Protocol,
        *,
        unseen: tuple[int, ...],
        conditions: tuple[Condition, ...],
        share: Share,
        notes: Sequence[str],
        images: int,
    ) -> None:
        self.config, self.dataset, self.protocol = config, dataset, protocol
        self.unseen, self.conditions, self.share = unseen, conditions, share
        self.notes, self.images = tuple(notes), images
        self.failures: dict[str, str] = {}
        classes = len(dataset.classes)
        self._matrices = torch.zeros(len(conditions), classes, classes + 1, dtype=torch.int64)

    def matrices(self) -> list[NDArray[np.int64]]:
        """[C, C + 1] of each condition, over all ranks; exact, since integers are added."""
        total = sum_over_ranks(self._matrices, self.share)
        self.failures = dict(gather_from_ranks(list(self.failures.items()), self.share))
        return [matrix.numpy() for matrix in total]

    def scores(self, matrix: NDArray[np.int64]) -> Scores:
        """The scores of one condition, with the split into seen and unseen classes where there is one."""
        return score(torch.from_numpy(matrix), self.unseen)

    def _add(self, result: ScoredImage) -> ScoredImage:
        if result.matrix is not None:
            self._matrices[result.condition] += result.matrix.cpu()
        elif result.error is not None:
            self.failures[result.image] = result.error.message
        return result


class Evaluation(Scoring):
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
        plan: ModelPlan,
        backbone: Backbone,
        predictor: Predictor,
        unseen: tuple[int, ...],
        conditions: tuple[Condition, ...],
        share: Share,
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
        )
        self.plan, self.backbone, self.predictor = plan, backbone, predictor
        self.device = describe_device(predictor.device)
        self.model = f"{backbone.name} / {backbone.pretrained}"
        self._groups = share.of(
            [
                [(condition, sample) for sample in samples]
                for condition in range(len(conditions))
                for _, samples in cut_into_groups(dataset.samples, config.batch_size)
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
        for result in stream.grouped(self._groups):
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


def size_to_score(height: int, width: int, protocol: Protocol) -> tuple[int, int]:
    """(H, W) at which a protocol scores a picture.

    As torchvision resizes to a short side: the long one is cut to whole pixels, not rounded.
    """
    short = protocol.score_short_side
    if short is None:
        return height, width
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short


def mean_corrupted(values: Sequence[float]) -> float:
    """Mean over corruptions and severities, each counting the same; NaN for none."""
    return float(np.mean(values)) if len(values) else float("nan")
