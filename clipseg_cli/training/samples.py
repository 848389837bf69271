"""The images of a training run with what is known about their pixels, and with nothing that must not be known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.config import UNLABELLED, ignore_value
from clipseg_cli.data.datasets import read_label, read_values
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import RunError
from clipseg_cli.runs.summary import label_path

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.training.task import TrainingTask
    from clipseg_cli.types import Sample

Labelled = tuple["NDArray[np.uint8]", "NDArray[np.int32]", "NDArray[np.int32] | None"]
"""Image [H, W, 3]; what is given [H, W]; what a run proposes [H, W], or None."""


class TrainingImages:
    """Reads one image with its labels; may be called from several threads at once.

    Given labels are class ids, `UNLABELLED` where a teacher or the student itself may label, or the ignore value. In
    the annotation-free setting all pixels are unlabelled and no ground truth is opened. In the zero-shot setting the
    ground truth of unseen classes is turned into `UNLABELLED` here, before anything else sees it.

    Args:
        task: which images, what may be known of them, and the run whose labels are proposed.
    """

    def __init__(self, task: TrainingTask) -> None:
        self.dataset, self.samples, self.run = task.dataset, task.samples, task.run
        self.setting, self.max_megapixels = task.config.setting, task.config.max_megapixels
        self.ignore = ignore_value(len(task.dataset.classes))
        self._human = task.human
        self._unseen = np.array(sorted(task.unseen), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, index: int) -> str:
        """Of an image, for people."""
        return self.samples[index].source.name

    @property
    def has_human(self) -> bool:
        """Whether a human answers for any label."""
        return bool(self._human)

    def is_human(self, index: int) -> bool:
        """Whether a human answers for the label of an image."""
        return self.name(index) in self._human

    def __call__(self, index: int) -> Labelled:
        """One image with its labels.

        Raises:
            ClipsegError: it cannot be read, or its labels do not fit.
        """
        sample = self.samples[index]
        pixels = read_image(sample.source, max_megapixels=self.max_megapixels).pixels
        size = (pixels.shape[0], pixels.shape[1])
        proposed = None if self.run is None else self._proposed(self.run, sample, size)
        return pixels, self._given(sample, size, proposed), proposed

    def _given(
        self, sample: Sample, size: tuple[int, int], proposed: NDArray[np.int32] | None
    ) -> NDArray[np.int32]:
        if self.setting == "annotation-free":
            return np.full(size, UNLABELLED, dtype=np.int32)
        if proposed is not None:
            # A run that keeps the labels of seen classes: only its own are of unseen ones.
            truth = proposed
        else:
            truth = read_label(sample, self.dataset, size)
            truth = np.where(truth < 0, self.ignore, truth).astype(np.int32)
        return np.where(np.isin(truth, self._unseen), np.int32(UNLABELLED), truth)

    def _proposed(self, run: Path, sample: Sample, size: tuple[int, int]) -> NDArray[np.int32]:
        path = label_path(run, sample)
        values = read_values(path, size=size, source=str(sample.source)).astype(np.int32)
        wrong = (values >= len(self.dataset.classes)) & (values != self.ignore)
        if wrong.any():
            raise RunError(
                f"{path} holds {int(values[wrong].flat[0])}, which is no class of the run",
                hint="label it again: clipseg pseudolabel, with another --name",
            )
        return values
