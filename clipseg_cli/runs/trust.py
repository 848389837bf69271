"""How far each label map of a run can be trusted, and what a page shows of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from clipseg_cli.config import ignore_value
from clipseg_cli.errors import RunError
from clipseg_cli.ops.components import absorb_small, find_regions, means_over
from clipseg_cli.ops.trust import UNKNOWN, accuracy, agreement, foreground, foreground_confidence
from clipseg_cli.outputs import (
    Entry,
    ReviewedImage,
    by_trust,
    jpeg_text,
    levels_text,
    nearest,
    review_entry,
    runs_text,
    shrunk,
)
from clipseg_cli.runs.records import file_fingerprint
from clipseg_cli.types import Segmentation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path, PurePosixPath

    from numpy.typing import NDArray

    from clipseg_cli.ops.components import Regions
    from clipseg_cli.runs.beside import OtherMaps
    from clipseg_cli.runs.labelled import LabelFolder
    from clipseg_cli.runs.records import ImageRecord
    from clipseg_cli.types import ClassList

CELL = 6
"""Pixels of the page that share one level of confidence, in each direction."""


@dataclass(frozen=True)
class Trust:
    """Reads label maps one by one and says how far they can be trusted; may be used from several threads at once.

    Attributes:
        labels: the run.
        records: what it noted of its images, by name; none for a folder of `segment`.
        against: a second run, by whose agreement images are ordered; None to order by confidence.
        truth: true label maps.
        out: the folder of the page.
        min_area: smaller regions, in pixels, go to what surrounds them.
        side: longest side of images in the page.
    """

    labels: LabelFolder
    records: Mapping[str, ImageRecord]
    against: OtherMaps | None
    truth: OtherMaps | None
    out: Path
    min_area: int
    side: int

    def require_known(self) -> None:
        """Prove that there is something to order by.

        Raises:
            RunError: nobody knows how sure the model was, and there is no second run.
        """
        noted = any(record.scored for record in self.records.values())
        if self.against is None and not self.labels.has_confidence and not noted:
            raise RunError(
                f"{self.labels.folder} does not hold how sure the model was of its labels",
                hint="label the images again with --formats labels,confidence, or name a second run with --against",
            )

    def entry(self, name: PurePosixPath) -> Entry:
        """One image with its regions, for the list and for the page.

        Raises:
            ClipsegError: the image or one of its label maps cannot be read, or they do not fit.
        """
        label = file_fingerprint(self.labels.files[name])
        result = self.labels.read(name, pixels=True)
        classes, shape = result.classes, result.labels.shape
        ignore = ignore_value(len(classes))
        record = self.records.get(str(name))
        corrected = str(name) in self.labels.human or bool(record and record.label not in ("", label))
        if corrected:  # the confidence that is there was about other labels
            result = _with(result, scores=np.broadcast_to(np.float32(np.nan), shape))
        result = _with(result, labels=absorb_small(result.labels, self.min_area, keep=ignore))
        labels, scores = result.labels, result.scores
        confidence = foreground_confidence(labels, scores, classes.background, ignore)
        if np.isnan(confidence) and record is not None and not corrected:
            confidence = _noted_confidence(record, classes)
        sure = not bool(np.isnan(scores.flat[0]))
        size = shape[0], shape[1]
        other = self.against.read(name, size) if self.against is not None and name in self.against else None
        true = self.truth.read(name, size) if self.truth is not None and name in self.truth else None
        regions = find_regions(labels, scores if sure else None, ignore=ignore)
        agreed = UNKNOWN if other is None else agreement(labels, other, classes.background, ignore)
        region_agreement = _agreement_of(regions, labels, other, ignore)
        ordered = self.against is not None
        region_trust = region_agreement if ordered else regions.confidences
        things = np.flatnonzero(regions.labels != _id(classes.background))
        image = ReviewedImage(
            name=str(name),
            link=self._link(name),
            size=size,
            trust=agreed if ordered else confidence,
            confidence=confidence,
            agreement=agreed,
            accuracy=UNKNOWN if true is None else accuracy(labels, true, ignore),
            foreground=float(foreground(labels, classes.background, ignore).mean()),
            ignored=float((labels == ignore).mean()),
            label=label,
            corrected=corrected,
            classes=result.shares(),
            regions=regions,
            region_trust=region_trust,
            region_agreement=region_agreement,
            things=by_trust(region_trust, regions.areas, things).tolist(),
        )
        payload = self._payload(result, image.outlined(), regions, other, true)
        return review_entry(image, classes.names, payload)

    def _link(self, name: PurePosixPath) -> str:
        """Where the image lies, as seen from the page; quoted, so that no name is taken for another address."""
        try:
            path = os.path.relpath(self.labels.images[name].resolve(), self.out.resolve())
        except ValueError:  # on another drive
            return ""
        return quote(path.replace(os.sep, "/").encode(errors="surrogateescape"), safe="/")

    def _payload(
        self,
        result: Segmentation,
        outlined: Sequence[int],
        regions: Regions,
        other: NDArray[np.int32] | None,
        true: NDArray[np.int32] | None,
    ) -> dict[str, Any]:
        """What the page draws: pixels without a label are C, those of a class that the run lacks C + 1."""
        count = len(result.classes)
        height, width = result.labels.shape
        size = shrunk(height, width, self.side)
        cells = max(1, round(size[0] / CELL)), max(1, round(size[1] / CELL))
        numbers = np.zeros(len(regions) + 1, np.int64)  # index -1 is the last: in no region
        numbers[list(outlined)] = np.arange(1, len(outlined) + 1)

        def text(ids: NDArray[Any] | None) -> str | None:
            if ids is None:
                return None
            small = nearest(ids, size).astype(np.int64)
            small[small == ignore_value(count)] = count
            small[small < 0] = count + 1
            return runs_text(small)

        known = not np.isnan(result.scores.flat[0])
        return {
            "size": [size[1], size[0]],
            "photo": jpeg_text(result.image.pixels, size),
            "labels": text(result.labels),
            "outlines": runs_text(numbers[nearest(regions.index, size)]) if outlined else None,
            "cells": [cells[1], cells[0]],
            "levels": levels_text(result.scores, cells) if known else None,
            "other": text(other),
            "truth": text(true),
        }


def _with(result: Segmentation, **changes: Any) -> Segmentation:
    kept = {"labels": result.labels, "scores": result.scores, **changes}
    return Segmentation(kept["labels"], kept["scores"], result.classes, result.image)


def _noted_confidence(record: ImageRecord, classes: ClassList) -> float:
    """Mean confidence of the foreground by the sums that a run noted; of all pixels where there is no foreground."""
    ids = [i for i in record.scored if i != classes.background] or list(record.scored)
    pixels = sum(record.scored[i] for i in ids)
    return sum(record.confidence.get(i, 0.0) for i in ids) / pixels if pixels else UNKNOWN


def _agreement_of(
    regions: Regions, labels: NDArray[Any], other: NDArray[np.int32] | None, ignore: int
) -> NDArray[np.float64]:
    """[R] share of the pixels of each region that another map labels in the same way; NaN where it says nothing."""
    if other is None:
        return np.full(len(regions), np.nan)
    known = means_over(regions, (other != ignore).astype(np.float32))
    same = means_over(regions, (labels == other).astype(np.float32))
    means = np.full(len(regions), np.nan)
    np.divide(same, known, out=means, where=known > 0)
    return means


def _id(background: int | None) -> int:
    return -1 if background is None else background
