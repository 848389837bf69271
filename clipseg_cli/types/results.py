"""What comes out for an image, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types.classes import ClassList
    from clipseg_cli.types.images import DecodedImage


@dataclass(frozen=True)
class Segmentation:
    """An exclusive label map with its confidence, at the picture's own size.

    Attributes:
        labels: [H, W] class ids; uint8 up to 255 classes, uint16 beyond.
        scores: [H, W] float32 in [0, 1], probability of the label that won.
        classes: what the ids mean.
        image: the picture that was segmented.
        class_scores: class id -> [H, W] float32 probability of that class, made when asked for, one at a
            time; None unless asked for.
    """

    labels: NDArray[np.uint8] | NDArray[np.uint16]
    scores: NDArray[np.float32]
    classes: ClassList
    image: DecodedImage
    class_scores: Callable[[int], NDArray[np.float32]] | None = None

    def shares(self) -> list[ClassShare]:
        """Share of pixels and mean confidence of every class, in label order; counted once."""
        return self._shares

    @cached_property
    def _shares(self) -> list[ClassShare]:
        classes, size = len(self.classes), self.labels.size
        counts, sums = np.zeros(classes, dtype=np.int64), np.zeros(classes)
        step = max(1, (1 << 20) // max(self.labels.shape[1], 1))
        for top in range(0, self.labels.shape[0], step):  # bincount widens what it gets to 8 bytes
            labels = self.labels[top : top + step].ravel()
            counts += np.bincount(labels, minlength=classes)
            sums += np.bincount(labels, weights=self.scores[top : top + step].ravel(), minlength=classes)
        return [
            ClassShare(i, name, int(n), float(n / size), float(total / n) if n else None)
            for i, (name, n, total) in enumerate(zip(self.classes.names, counts, sums, strict=True))
        ]


@dataclass(frozen=True)
class ClassShare:
    """How much of one picture one class took: pixel count, share in [0, 1], mean confidence or None."""

    id: int
    name: str
    pixels: int
    share: float
    confidence: float | None


class WriteFn(Protocol):
    """Writes one result in one format."""

    def __call__(self, result: Segmentation, stem: Path) -> Sequence[Path]:
        """Write below `stem`, a path without suffix, and return the files made."""


@dataclass(frozen=True)
class Writer:
    """One output format for one picture; a file in `outputs/` that declares WRITER is in the registry.

    Attributes:
        write: (result, stem) -> files written. Must go through `utils.files` so that no half file exists.
        ending: what the name of its file, or of the folder for its files, adds to the stem.
        default: written without being asked for.
        summary: one line for help texts.
    """

    write: WriteFn
    ending: str
    default: bool = True
    summary: str = ""


@dataclass(frozen=True)
class RunInfo:
    """With what a folder of results was made: goes into its `classes.json`."""

    classes: ClassList
    options: Mapping[str, Any]
    model: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
