"""What `Segmenter` gives for an image: labels, and files of them in any of the formats."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipseg_cli import types
from clipseg_cli.errors import UsageError
from clipseg_cli.ops.components import Regions, absorb_small, find_regions
from clipseg_cli.outputs import Outputs, format_names, write_run_info

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipseg_cli.types import RunInfo


@dataclass(frozen=True)
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

    def regions(self, min_area: int = 0) -> Regions:
        """The parts of each class that hang together, the background's too, as all formats write them.

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
