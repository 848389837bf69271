"""`<stem>_probs.npz`: heat maps as data, for `numpy.load`.

`classes` [C] names in the order of their ids; under each id, as text ("3"), float16 [H, W] in [0, 1] at the image's own
size, for each class that is somewhere at least so probable as `least`.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.outputs._archive import member
from clipseg_cli.outputs._each import each
from clipseg_cli.outputs._own import MARK, write_own
from clipseg_cli.outputs._run import json_safe
from clipseg_cli.types import Format

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from clipseg_cli.types import RunInfo, Segmentation

ENDING = "_probs.npz"


def write(result: Segmentation, stem: Path, run: RunInfo, *, least: float = 0.01) -> tuple[Path, ...]:
    """Write `<stem>_probs.npz`; nothing without `class_scores`.

    Raises:
        OutputError: the file cannot be written.
    """
    if result.class_scores is None:
        return ()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for key, array in _arrays(result, run, least):
            data = io.BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=False)
            archive.writestr(member(f"{key}.npy", packed=True), data.getvalue())
    return (write_own(stem.with_name(stem.name + ENDING), buffer.getvalue()),)


def _arrays(result: Segmentation, run: RunInfo, least: float) -> Iterator[tuple[str, NDArray[Any]]]:
    """One after the other: [H, W] of 12 megapixels is 48 MB, and there may be 171 classes."""
    yield MARK, np.array(run.versions.get("clipseg", ""))  # first, so that the file is known to be ours
    yield "classes", np.array([json_safe(name) for name in result.classes.names])
    assert result.class_scores is not None
    for i in range(len(result.classes)):
        scores = result.class_scores(i)
        if scores.max() >= least:
            yield str(i), scores.astype(np.float16)


FORMAT = Format(
    each(write),
    ENDING,
    class_scores=True,
    needs=("scores",),
    ranges={"least": (0, 1)},
    summary="the probability of each class at each pixel as arrays for numpy.load",
)
