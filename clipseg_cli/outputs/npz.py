"""`<stem>.npz`: labels and confidence as arrays, for `numpy.load`.

`labels` [H, W] class ids as in the label PNG, `confidence` [H, W] float32 in [0, 1] (missing where nobody knows it),
`classes` [C] names in the order of their ids, `background` its id or -1, `ignore` the label of pixels without a class.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.config import ignore_value
from clipseg_cli.outputs._each import each
from clipseg_cli.outputs._own import MARK, write_own
from clipseg_cli.outputs._regions import has_no_scores
from clipseg_cli.outputs._run import json_safe
from clipseg_cli.types import Format

if TYPE_CHECKING:
    from pathlib import Path

    from clipseg_cli.types import RunInfo, Segmentation

ENDING = ".npz"


def write(result: Segmentation, stem: Path, run: RunInfo) -> tuple[Path, ...]:
    """Write `<stem>.npz`.

    Raises:
        OutputError: the file cannot be written.
    """
    classes = result.classes
    arrays = {
        MARK: np.array(run.versions.get("clipseg", "")),  # first, so that the file is known to be ours
        "classes": np.array([json_safe(name) for name in classes.names]),
        "background": np.array(-1 if classes.background is None else classes.background),
        "ignore": np.array(ignore_value(len(classes))),
        "labels": result.labels,
    }
    if not has_no_scores(result):
        arrays["confidence"] = result.scores
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return (write_own(stem.with_name(stem.name + ENDING), buffer.getvalue()),)


FORMAT = Format(each(write), ENDING, summary="labels, confidence and class names as arrays for numpy.load")
