"""Scoring a student on the way, through the loop that `clipseg eval` uses."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clipseg_cli.config import EvalConfig, InferenceConfig, ignore_value
from clipseg_cli.data.datasets import read_label
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ClipsegError
from clipseg_cli.evaluation.model_scoring import ModelScoring
from clipseg_cli.evaluation.scoring import CLEAN
from clipseg_cli.inference.predictor import Predictor
from clipseg_cli.inference.students import student_protocol
from clipseg_cli.models.student.adapter import StudentModel
from clipseg_cli.outputs import LabelRow
from clipseg_cli.training.log import Validation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from clipseg_cli.models.student.files import StudentCard
    from clipseg_cli.models.student.network import Student
    from clipseg_cli.types import Dataset, Sample
    from clipseg_cli.utils.distributed import Share

SHOWN = 4
"""Pictures of each kind on the sheet of sample predictions."""


class Validator:
    """Scores a student while it is trained; its weights are read where they are.

    Args:
        student, card: as they will be written.
        dataset: with ground truth.
        images: how many of its pictures, spread over the list; 0 for all.
        config: with batch size, workers, device and precision.
        device, dtype: where and in what precision it computes.
        share: of the work.
        out: folder of the run; nothing is written.
    """

    def __init__(
        self,
        student: Student,
        card: StudentCard,
        dataset: Dataset,
        *,
        images: int,
        config: InferenceConfig,
        device: torch.device,
        dtype: torch.dtype,
        share: Share,
        out: Path,
    ) -> None:
        samples = dataset.samples
        if images and images < len(samples):
            samples = tuple(samples[i * len(samples) // images] for i in range(images))
        self.dataset = dataclasses.replace(dataset, samples=samples)
        self.student, self.card = student, card
        self.config, self.device, self.dtype = config, device, dtype
        self.share, self.out = share, out
        self.failures: dict[str, str] = {}

    def __call__(self, iteration: int) -> Validation:
        """Scores after so many iterations; every rank must call it."""
        with _evaluating(self.student):
            evaluation = ModelScoring(
                EvalConfig(batch_size=self.config.batch_size, workers=self.config.workers),
                self.dataset,
                student_protocol(self.card),
                self.card.templates,
                StudentModel(self.student, self.card, "in training"),
                predictor_of(self.student, self.card, self.config, self.device, self.dtype),
                (),
                (CLEAN,),
                self.share,
                self.out,
            )
            for _ in evaluation:
                pass
            scores = evaluation.scores(evaluation.matrices()[0])
        self.failures |= evaluation.failures
        return Validation(
            iteration,
            scores.miou,
            scores.pixel_accuracy,
            len(self.dataset.samples) - len(evaluation.failures),
        )


def predictor_of(
    student: Student, card: StudentCard, config: InferenceConfig, device: torch.device, dtype: torch.dtype
) -> Predictor:
    """The inference loop over a student in memory, with the words that it is trained with."""
    model = StudentModel(student, card, "in training")
    return Predictor(
        model,
        None,
        card.classes,
        student.queries().detach(),
        InferenceConfig(batch_size=config.batch_size),
        device=device,
        dtype=dtype,
        protocol=student_protocol(card),
    )


def sample_rows(
    student: Student,
    predictor: Predictor,
    taught: Sequence[tuple[Sample, NDArray[np.int32] | None]],
    validation: Dataset | None,
) -> list[LabelRow]:
    """Some pictures with what the student says of them.

    Args:
        student: in training; it is switched to evaluation meanwhile.
        predictor: of this student.
        taught: training pictures, each with the labels that it was taught, if they are known.
        validation: pictures with ground truth.
    """
    rows: list[LabelRow] = []
    scored = () if validation is None else validation.samples
    shown = [scored[i * len(scored) // SHOWN] for i in range(SHOWN)] if len(scored) >= SHOWN else list(scored)
    with _evaluating(student):
        for sample, labels in taught:
            rows += _row(predictor, sample, labels, lambda _: None)
        for sample in shown:
            rows += _row(predictor, sample, None, lambda sample: _truth(sample, validation))
    return rows


def _row(
    predictor: Predictor,
    sample: Sample,
    taught: NDArray[np.int32] | None,
    truth: Callable[[Sample], NDArray[np.int32] | None],
) -> list[LabelRow]:
    """One row, or none where the picture cannot be read: that is said elsewhere."""
    try:
        image = read_image(sample.source)
        (found,) = predictor.predict([predictor.prepare(image)])
        maps = (taught, found.labels, truth(sample))
        return [LabelRow(str(sample.source.relative), image.pixels, maps)]
    except ClipsegError:
        return []


def _truth(sample: Sample, dataset: Dataset | None) -> NDArray[np.int32] | None:
    if dataset is None:
        return None
    labels = read_label(sample, dataset)
    labels[labels < 0] = ignore_value(len(dataset.classes))
    return labels


@contextmanager
def _evaluating(student: Student) -> Iterator[None]:
    """A network in eval mode within the block, and as it was behind it."""
    before = student.training
    student.eval()
    try:
        yield
    finally:
        student.train(before)
