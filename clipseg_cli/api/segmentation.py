"""What `Segmenter` gives for an image: labels, and files of them in any of the formats."""

from __future__ import annotations

import dataclasses
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli import types
from clipseg_cli.errors import UsageError
from clipseg_cli.ops.components import Regions, absorb_small, find_regions
from clipseg_cli.outputs import Outputs, format_names, write_run_info

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from clipseg_cli.types import RunInfo

SHOWN = 4
"""Classes in a `repr`."""


@dataclass(frozen=True, repr=False)
class Segmentation(types.Segmentation):
    """An exclusive label map with its confidence, at the image's own size; its fields are those of the base class.

    Attributes:
        run: with what it was made, for the records beside its files.
    """

    run: RunInfo | None = None

    @classmethod
    def of(cls, result: types.Segmentation, run: RunInfo) -> Segmentation:
        """The same result, which can be saved."""
        return cls(result.labels, result.scores, result.classes, result.image, result.class_scores, run)

    def __repr__(self) -> str:
        """As in "<Segmentation 480x640: sky 41%, dog 12%>", the largest shares first."""
        height, width = self.labels.shape
        found = sorted((s for s in self.shares() if s.pixels), key=lambda s: -s.share)
        named = [f"{s.name} {s.share:.0%}" for s in found[:SHOWN]]
        more = [f"{len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return f"<Segmentation {height}x{width}: {', '.join(named + more) or 'nothing'}>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the overlay."""
        file = io.BytesIO()
        self.overlay().save(file, "PNG")
        return file.getvalue()

    @property
    def confidence(self) -> NDArray[np.float32]:
        """[H, W] in [0, 1], the probability of the label that won; the field `scores` by its other name."""
        return self.scores

    def masks(self, *, background: bool = False) -> dict[str, NDArray[np.bool_]]:
        """Name of each class that occurs -> the pixels that are it, bool [H, W].

        Args:
            background: the background's, too.
        """
        return {
            share.name: np.asarray(self.labels == share.id)
            for share in self.shares()
            if share.pixels and (background or share.id != self.classes.background)
        }

    def overlay(self, opacity: float | None = None) -> Image.Image:
        """The image tinted by class, with a legend, RGB; large ones are shown smaller, as `--formats overlay` does.

        Args:
            opacity: how much of the class colours shows, from 0 to 1; None takes the default.

        Raises:
            UsageError: it is not in that range.
        """
        from clipseg_cli.outputs.overlay import draw_overlay

        if opacity is None:
            return draw_overlay(self)
        if not 0 <= opacity <= 1:
            raise UsageError(f"an opacity of {opacity} is not between 0 and 1")
        return draw_overlay(self, opacity)

    def to_supervision(self, min_area: int = 0) -> Any:
        """`supervision.Detections`, one for each region of a class that is not the background.

        Masks, boxes (left, top, right, bottom; the last pixel not included), class ids, mean confidences (1 where
        nobody knows them), and the names in `data["class_name"]`.

        Args:
            min_area: as for `regions`.

        Raises:
            UsageError: the library supervision is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            raise UsageError(
                "to_supervision needs the library supervision", hint='pip install "supervision<0.28"'
            ) from error
        regions = self.regions(min_area)
        kept = [i for i in range(len(regions)) if regions.labels[i] != self.classes.background]
        if not kept:
            return supervision.Detections.empty()
        left, top, width, height = regions.boxes[kept].T
        confidences = regions.confidences[kept]
        ids = regions.labels[kept]
        return supervision.Detections(
            xyxy=np.stack([left, top, left + width, top + height], axis=1).astype(np.float32),
            mask=np.stack([regions.index == i for i in kept]),
            confidence=np.where(np.isnan(confidences), 1.0, confidences).astype(np.float32),
            class_id=ids.astype(int),
            data={"class_name": np.array([self.classes.names[i] for i in ids])},
        )

    def regions(self, min_area: int = 0) -> Regions:
        """The connected components of each class, the background's too, as all formats write them.

        Args:
            min_area: regions of fewer pixels go to what surrounds them; 0 keeps them all.
        """
        return find_regions(self.labels, self.scores, min_area=min_area)

    def save(
        self,
        folder: str | os.PathLike[str],
        name: str = "",
        *,
        formats: str | Sequence[str] = "labels,overlay",
        min_area: int = 0,
    ) -> list[Path]:
        """Write it as `clipseg segment --out FOLDER` does, with `classes.json` beside it.

        Args:
            folder: made where it does not exist; one folder holds maps of one class list.
            name: of the files, without suffix, below the folder; left out, that of the image.
            formats: as `--formats` takes them, or a list of names.
            min_area: regions of fewer pixels go to what surrounds them; 0 keeps them all.

        Returns:
            The files that were written.

        Raises:
            UsageError: an unknown format, or a name that leads out of the folder.
            OutputError: a file cannot be written, would replace one that is not ours, or the folder holds maps of
                other classes.
        """
        out = Path(os.fsdecode(folder))
        names = format_names([formats] if isinstance(formats, str) else formats)
        inside = Path(name or self.image.source.relative)
        if inside.is_absolute() or ".." in inside.parts:
            raise UsageError(f"name '{name}' leads out of the folder", hint='as in "sub/photo"')
        run = self.run or types.RunInfo(self.classes, {}, {})
        outputs = Outputs(names, run, out, {})
        written = [write_run_info(run, out)]
        outputs.begin()
        result = dataclasses.replace(self, labels=absorb_small(self.labels, min_area)) if min_area else self
        for made in (outputs.write(result, out / inside), outputs.end()):
            written += [path for paths in made.values() for path in paths]
        return written
