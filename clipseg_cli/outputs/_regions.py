"""What the formats for annotation tools share: the regions of a result, numbers of classes, names of images."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.config import ignore_value
from clipseg_cli.ops.components import Regions, find_regions, runs_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.ops.components import Runs
    from clipseg_cli.types import ClassList, Segmentation

logger = logging.getLogger(__name__)

AREAS = (0, 100_000_000)
"""Range of `min_area`, in pixels."""


def regions_of(result: Segmentation, min_area: int = 0) -> Regions:
    """The regions of a result, found once for all formats.

    Args:
        result: of one image.
        min_area: what is smaller goes to its surroundings; 0 leaves everything as it is.
    """
    key = "regions", min_area
    if key not in result.derived:
        scores = None if has_no_scores(result) else result.scores
        ignore = ignore_value(len(result.classes))
        result.derived[key] = find_regions(result.labels, scores, ignore=ignore, min_area=min_area)
    regions: Regions = result.derived[key]
    return regions


def runs_along(result: Segmentation, min_area: int, by: str) -> Runs:
    """The runs of these regions along "rows" or "columns", found once for all formats."""
    key = "runs", min_area, by
    if key not in result.derived:
        regions = regions_of(result, min_area)
        result.derived[key] = runs_of(regions.index, len(regions), by=by)
    runs: Runs = result.derived[key]
    return runs


def things(result: Segmentation, regions: Regions) -> Iterator[int]:
    """The regions that are no background."""
    return iter(np.flatnonzero(regions.labels != _background(result.classes)).tolist())


def has_no_scores(result: Segmentation) -> bool:
    """Whether nobody knows how sure the labels are."""
    return bool(result.scores.size) and bool(np.isnan(result.scores.flat[0]))


def rounded(confidence: float) -> float | None:
    """A confidence with four digits, or None where it is not known."""
    return None if np.isnan(confidence) else round(float(confidence), 4)


def class_numbers(classes: ClassList) -> NDArray[np.int64]:
    """For each class id the number that annotation tools get: from 1 in label order; the background, if any, is 0.

    Where the background is the first class, these are the ids themselves.
    """
    background = _background(classes)
    numbers = np.ones(len(classes), np.int64)
    if background >= 0:
        numbers[background] = 0
    numbers = np.cumsum(numbers)
    if background >= 0:
        numbers[background] = 0
    return numbers


def _background(classes: ClassList) -> int:
    return -1 if classes.background is None else classes.background


def image_name(result: Segmentation, stem: Path, out: Path) -> str:
    """What an image is called below its folder, with slashes and with its suffix where it is a file.

    Args:
        result: of the image.
        stem: of its outputs.
        out: the folder of all outputs.
    """
    inside, source = stem.relative_to(out), result.image.source
    file = PurePath(source.file or source.path or source.relative)
    if inside.as_posix() == str(source.relative) or inside.name == file.stem:
        inside = inside.with_name(file.name)
    elif file.suffix != inside.suffix:  # saved under a name of its own
        inside = inside.with_name(inside.name + file.suffix)
    return inside.as_posix().encode(errors="replace").decode()


def writable_names(classes: ClassList, forbidden: str = "", taken: tuple[str, ...] = ()) -> list[str]:
    """The names of the classes without characters that a format cannot hold; different ones stay different.

    Args:
        classes: whose names.
        forbidden: characters as for `clean`.
        taken: names that no class may have.
    """
    found = list(taken)
    for name in classes.names:
        kept = clean(name, forbidden) or "_"
        number = 2
        own = kept
        while own in found:
            own, number = f"{kept}_{number}", number + 1
        found.append(own)
    return found[len(taken) :]


def clean(text: str, forbidden: str = "") -> str:
    """A text with "_" for each character that no text file and no XML holds, and for further forbidden ones."""
    return "".join(c if _is_text(c) and c not in forbidden else "_" for c in text)


def _is_text(character: str) -> bool:
    # Cc: control characters, Cs: lone surrogates; XML 1.0 lacks the last two of the first plane as well.
    return character == "\t" or (
        unicodedata.category(character) not in ("Cc", "Cs") and character not in "\ufffe\uffff"
    )


class Lost:
    """What a format could not hold, counted over all images and said once.

    Args:
        format_: name of the format.
    """

    def __init__(self, format_: str) -> None:
        self._format, self._counts = format_, Counter[str]()

    def add(self, what: str, number: int) -> None:
        """Count something that was lost, as in "regions with holes, which no polygon holds".

        Args:
            what: a text, behind which the number will stand.
            number: of them in one image.
        """
        if number:
            self._counts[what] += number

    def ignored(self, result: Segmentation) -> None:
        """Count pixels without a label, which are as good as background in formats that only hold things."""
        own = int(np.count_nonzero(result.labels == ignore_value(len(result.classes))))
        self.add("ignored pixels, which are in no region of it, like those of the background", own)

    def say(self) -> None:
        """Tell the user, once, behind the last image."""
        for what, number in sorted(self._counts.items()):
            logger.warning("%s: %s: %s", self._format, what, f"{number:,}")
