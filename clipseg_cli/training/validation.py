"""Scoring a student on the way, through the loop that `clipseg eval` uses; and images to look at what it has learnt."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from clipseg_cli.config import UNLABELLED, EvalConfig, InferenceConfig, ignore_value
from clipseg_cli.data.datasets import read_label
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ClipsegError
from clipseg_cli.evaluation.model_scoring import ModelScoring
from clipseg_cli.inference.predictor import Predictor
from clipseg_cli.inference.students import student_protocol
from clipseg_cli.models.student.adapter import StudentModel
from clipseg_cli.outputs import LabelRow
from clipseg_cli.training.log import Validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from clipseg_cli.config import TrainConfig
    from clipseg_cli.models.student.files import StudentCard
    from clipseg_cli.models.student.network import Student
    from clipseg_cli.training.samples import TrainingImages
    from clipseg_cli.training.targets import Teacher
    from clipseg_cli.training.task import TrainingTask
    from clipseg_cli.types import Dataset, Sample
    from clipseg_cli.utils.distributed import Share

T = TypeVar("T")

SHOWN = 4
"""Images of each kind on the sheet of sample predictions."""


class Validator:
    """Looks at a student while it is trained; its weights are read where they are.

    Args:
        student, card: as they will be written.
        task: with the images to score on, if there are any.
        images: of the training.
        teacher: labels an image as it labels crops; None where a run or the ground truth does.
        config: with the number of images to score on, spread over the list (0: all), and of workers.
        device, dtype: where and in what precision it computes.
        share: of the work.
        out: folder of the run; nothing is written.

    Attributes:
        failures: image -> why it could not be scored.
    """

    def __init__(
        self,
        student: Student,
        card: StudentCard,
        task: TrainingTask,
        images: TrainingImages,
        teacher: Teacher | None,
        *,
        config: TrainConfig,
        device: torch.device,
        dtype: torch.dtype,
        share: Share,
        out: Path,
    ) -> None:
        self.student, self.card, self.task, self.images = student, card, task, images
        self.teacher, self.config, self.device, self.dtype = teacher, config, device, dtype
        self.share, self.out = share, out
        self.failures: dict[str, str] = {}
        self._taught: list[tuple[Sample, NDArray[np.int32] | None]] | None = None

    def __call__(self, iteration: int) -> Validation | None:
        """Scores after so many iterations, or None without anything to score on; every rank must call it."""
        if self.task.validation is None:
            return None
        everything = self.task.validation.samples
        samples = _spread(everything, self.config.validation_images or len(everything))
        dataset = dataclasses.replace(self.task.validation, samples=samples)
        with self._evaluating() as predictor:
            evaluation = ModelScoring(
                config=EvalConfig(workers=self.config.workers or EvalConfig.workers),
                dataset=dataset,
                protocol=student_protocol(self.card),
                images=len(samples),
                share=self.share,
                out=self.out,
                templates=self.card.templates,
                backbone=StudentModel(self.student, self.card, "in training"),
                predictor=predictor,
            )
            for _ in evaluation:
                pass
            scores = evaluation.scores(evaluation.matrices()[0])
        self.failures |= evaluation.failures
        scored = len(samples) - len(evaluation.failures)
        return Validation(iteration, scores.miou, scores.pixel_accuracy, scored)

    def sample_rows(self) -> list[LabelRow]:
        """What the student says of some training images, beside what was taught, and of some with ground truth."""
        scored, rows = self.task.validation, list[LabelRow]()
        if self._taught is None:
            numbers = _spread(range(len(self.images)), SHOWN)
            self._taught = [(self.images.samples[i], self._labels_taught(i)) for i in numbers]
        with self._evaluating() as predictor:
            for sample, labels in self._taught:
                rows += _row(predictor, sample, labels, None)
            for sample in _spread(scored.samples, SHOWN) if scored else ():
                rows += _row(predictor, sample, None, scored)
        return rows

    def _labels_taught(self, index: int) -> NDArray[np.int32] | None:
        """For a whole image; None where it cannot be read or nobody teaches."""
        try:
            _, given, proposed = self.images(index)
            unlabelled = given == UNLABELLED
            if proposed is not None:
                return np.where(unlabelled, proposed, given)
            if self.teacher is not None and unlabelled.any():
                predictor = self.teacher.predictor
                (said,) = predictor.predict(
                    [predictor.prepare(read_image(self.images.samples[index].source))]
                )
                ids = np.array(self.task.unlabelled, dtype=np.int32)
                return np.where(unlabelled, ids[said.labels], given)
        except ClipsegError:
            return None
        return given

    @contextmanager
    def _evaluating(self) -> Iterator[Predictor]:
        """The inference loop over the student in eval mode, with the words that it is trained with."""
        before = self.student.training
        self.student.eval()
        try:
            yield Predictor(
                StudentModel(self.student, self.card, "in training"),
                None,
                self.card.classes,
                self.student.queries().detach(),
                InferenceConfig(),
                device=self.device,
                dtype=self.dtype,
                protocol=student_protocol(self.card),
            )
        finally:
            self.student.train(before)


def _spread(items: Sequence[T], count: int) -> tuple[T, ...]:
    """So many of the items, or all, evenly over the list."""
    count = min(count, len(items))
    return tuple(items[i * len(items) // count] for i in range(count))


def _row(
    predictor: Predictor, sample: Sample, taught: NDArray[np.int32] | None, scored: Dataset | None
) -> list[LabelRow]:
    """One row, with ground truth from a data set; none where the image cannot be read: that is said elsewhere."""
    try:
        image = read_image(sample.source)
        (said,) = predictor.predict([predictor.prepare(image)])
        truth = None
        if scored is not None:
            truth = read_label(sample, scored)
            truth[truth < 0] = ignore_value(len(scored.classes))
    except ClipsegError:
        return []
    return [LabelRow(sample.source.name, image.pixels, (taught, said.labels, truth))]
