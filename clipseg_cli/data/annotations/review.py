"""The marks of a review page: labels marked "good" are right as they are.

{"format": "clipseg-review", "version": 1, "run": NAME, "marks": {IMAGE: "good" | "fix" | "skip"},
 "labels": {IMAGE: fingerprint of the label that was looked at}}
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

from clipseg_cli.data.annotations._json import read_json, text, whole
from clipseg_cli.data.annotations._kinds import REVIEW, json_kind
from clipseg_cli.data.annotations._regions import about
from clipseg_cli.errors import AnnotationError
from clipseg_cli.types import Annotation, AnnotationFormat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clipseg_cli.types import ReadOptions

logger = logging.getLogger(__name__)

VERSION, GOOD, OTHERS = 1, "good", ("fix", "skip")


def read(path: Path, options: ReadOptions) -> Iterator[Annotation]:
    """The images that were marked as good.

    Raises:
        AnnotationError: it is not such a file, or about another run.
    """
    data = read_json(path)
    with about(str(path)):
        if not isinstance(data, dict) or data.get("format") != REVIEW:
            raise AnnotationError("these are no marks of a review page")
        if (version := whole(data, "version")) != VERSION:
            raise AnnotationError(f"these marks have version {version}; this clipseg reads version {VERSION}")
        run = PurePath(text(data, "run").replace("\\", "/")).name
        if options.run and run and run != options.run:
            raise AnnotationError(
                f"these marks are about {run}, not about {options.run}",
                hint="marks say which labels are right, so they hold for one run; was its folder renamed?",
            )
        marks = data.get("marks")
        if not isinstance(marks, dict):
            raise AnnotationError("'marks' is no object")
        labels = data.get("labels", {})  # which files of older pages lack
        if not isinstance(labels, dict) or not all(isinstance(label, str) for label in labels.values()):
            raise AnnotationError("'labels' is no object of texts")
        for image, mark in marks.items():
            if mark != GOOD and mark not in OTHERS:
                raise AnnotationError(f"{image} is marked {str(mark)[:20]!r}, not good, fix or skip")
    counts = Counter(mark for mark in marks.values() if mark != GOOD)
    if counts:
        said = " and ".join(f"{count:,} to {mark}" for mark, count in sorted(counts.items()))
        logger.warning("%s marks %s; their labels stay as they are", path, said)
    for image, mark in marks.items():
        if mark == GOOD:
            yield Annotation(image, None, None, checked=True, label=labels.get(image, ""))


FORMAT = AnnotationFormat(
    read,
    lambda path: json_kind(path) == "review",
    (".json",),
    summary="the marks of a review page: good ones are checked",
)
