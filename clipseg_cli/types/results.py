"""What comes out for an image, and how it is written."""

from __future__ import annotations

import sys
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
    """An exclusive label map with its confidence, at the image's own size.

    Attributes:
        labels: [H, W] class ids; uint8 up to 255 classes, uint16 beyond. Those read from files may hold the value for
            "ignore" as well.
        scores: [H, W] float32 in [0, 1], probability of the label that won; NaN where nobody knows it, as for label
            maps that are read from files.
        classes: what the ids mean.
        image: the image that was segmented.
        class_scores: class id -> [H, W] float32 probability of that class, made when asked for, one at a
            time; None unless asked for.
        features: what the network says of each window, by name, where features are kept; else None.
        derived: what functions have computed from it and want to keep, such as its regions.
    """

    labels: NDArray[np.uint8] | NDArray[np.uint16]
    scores: NDArray[np.float32]
    classes: ClassList
    image: DecodedImage
    class_scores: Callable[[int], NDArray[np.float32]] | None = None
    features: Sequence[Mapping[str, NDArray[Any]]] | None = field(
        default=None, repr=False, compare=False, kw_only=True
    )
    derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def shares(self) -> list[ClassShare]:
        """Share of pixels and mean confidence of every class, in label order; counted once."""
        return self._shares

    @cached_property
    def _shares(self) -> list[ClassShare]:
        classes, size = len(self.classes), self.labels.size
        counts, sums = np.zeros(classes, dtype=np.int64), np.zeros(classes)
        step = max(1, (1 << 20) // max(self.labels.shape[1], 1))
        for top in range(0, self.labels.shape[0], step):  # scores are widened to 8 bytes
            labels, scores = (part[top : top + step].ravel() for part in (self.labels, self.scores))
            own, total = count_ids(labels, scores.astype(np.float64), classes)
            counts += own[:classes]  # and none of those that are ignored
            sums += total[:classes]
        return [
            ClassShare(i, name, int(n), float(n / size), float(total / n) if n and total == total else None)
            for i, (name, n, total) in enumerate(zip(self.classes.names, counts, sums, strict=True))
        ]


def count_ids(ids: NDArray[Any], scores: NDArray[np.float64], classes: int) -> tuple[Any, Any]:
    """How often each id stands there, and the sum of its scores.

    PyTorch counts without the interpreter's lock, which the thread of a model needs meanwhile. Where none is loaded it
    would take seconds to import; both ways give the same.

    Args:
        ids: [n] of any integers that are not negative.
        scores: [n].
        classes: results have as many entries, and more where an id is larger.

    Returns:
        [classes] int64, and [classes] float64.
    """
    if torch := sys.modules.get("torch"):
        # PyTorch takes few types as they are, and nothing that cannot be written to.
        taken = ids if ids.dtype == np.uint8 and ids.flags.writeable else ids.astype(np.int32)
        on, said = torch.from_numpy(taken), torch.from_numpy(scores)
        return torch.bincount(on, minlength=classes).numpy(), torch.bincount(on, said, classes).numpy()
    return np.bincount(ids, minlength=classes), np.bincount(ids, scores, classes)


@dataclass(frozen=True)
class ClassShare:
    """How much of one image one class took: pixel count, share in [0, 1], mean confidence or None if unknown."""

    id: int
    name: str
    pixels: int
    share: float
    confidence: float | None


class Writer(Protocol):
    """One format, being written into one folder. Must go through `utils.files` so that no half file exists."""

    def begin(self) -> None:
        """Once, before the first result.

        Raises:
            OutputError: what lies in the folder already does not allow it.
        """

    def write(self, result: Segmentation, stem: Path) -> Sequence[Path]:
        """One result, from any of several threads: files made, below `stem`, a path without suffix.

        Raises:
            OutputError: a file cannot be written.
        """

    def end(self) -> Sequence[Path]:
        """Once, behind the last result, however the run ended: files made that describe all of them.

        Raises:
            OutputError: a file cannot be written.
        """


@dataclass(frozen=True)
class Format:
    """One output format; a file in `outputs/` that declares FORMAT is in the registry.

    Attributes:
        open: (run, out, **options) -> a `Writer` for the folder `out`; options are keyword arguments with defaults.
        ending: what the name of its file, or of the folder for its files, adds to the stem of a result; "" where one
            file holds all results.
        default: written without being asked for.
        class_scores: needs `Segmentation.class_scores`.
        needs: what it needs beside labels, of "pixels" and "scores", which label maps that are read from files lack.
        ranges: option -> (least, most).
        summary: one line for help texts.
    """

    open: Callable[..., Writer]
    ending: str = ""
    default: bool = False
    class_scores: bool = False
    needs: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    summary: str = ""


@dataclass(frozen=True)
class RunInfo:
    """With what a folder of results was made: goes into its `classes.json`."""

    classes: ClassList
    options: Mapping[str, Any]
    model: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def made_by(self) -> str:
        """As in "ViT-B-16 / openai, sc_clip"; empty where nothing is known."""
        model = " / ".join(str(self.model[key]) for key in ("name", "pretrained") if key in self.model)
        return ", ".join(filter(None, (model, str(self.options.get("method") or ""))))
