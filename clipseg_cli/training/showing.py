"""The sheet of sample predictions: some training pictures with what was taught there, some with ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.config import UNLABELLED
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ClipsegError
from clipseg_cli.training.validation import SHOWN, predictor_of, sample_rows

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.models.student.files import StudentCard
    from clipseg_cli.models.student.network import Student
    from clipseg_cli.outputs import LabelRow
    from clipseg_cli.training.samples import Pictures
    from clipseg_cli.types import Dataset, Sample


class Sheet:
    """Chooses the pictures once, and has the student label them whenever it is asked to.

    Args:
        pictures: of the training.
        teacher: labels a picture as it labels crops; None where a run or the ground truth does.
        class_ids: ids of the classes that the teacher gives.
        validation: pictures with ground truth, or None.
    """

    def __init__(
        self,
        pictures: Pictures,
        teacher: Predictor | None,
        class_ids: tuple[int, ...],
        validation: Dataset | None,
        *,
        card: StudentCard,
        config: InferenceConfig,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._pictures, self._teacher = pictures, teacher
        self._ids = np.array(class_ids, dtype=np.int32)
        self._validation, self._card, self._config = validation, card, config
        self._device, self._dtype = device, dtype
        self._taught: list[tuple[Sample, NDArray[np.int32] | None]] | None = None

    def rows(self, student: Student) -> list[LabelRow]:
        """The rows of the sheet, with what the student says now."""
        if self._taught is None:
            count = len(self._pictures)
            numbers = sorted({i * count // SHOWN for i in range(SHOWN)})
            self._taught = [(self._pictures.samples[i], self._labels(i)) for i in numbers]
        predictor = predictor_of(student, self._card, self._config, self._device, self._dtype)
        return sample_rows(student, predictor, self._taught, self._validation)

    def _labels(self, index: int) -> NDArray[np.int32] | None:
        """What is taught for a whole picture; None where it cannot be read or nobody teaches."""
        try:
            _, given, proposed = self._pictures(index)
            filled: NDArray[np.int32] = given.copy()
            unlabelled = given == UNLABELLED
            if proposed is not None:
                filled[unlabelled] = proposed[unlabelled]
            elif self._teacher is not None and unlabelled.any():
                image = read_image(self._pictures.samples[index].source)
                (found,) = self._teacher.predict([self._teacher.prepare(image)])
                filled[unlabelled] = self._ids[found.labels][unlabelled]
        except ClipsegError:
            return None
        return filled
