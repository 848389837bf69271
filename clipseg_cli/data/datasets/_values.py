"""What the numbers in label files mean: number -> class id, or -1 for pixels that nobody scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clipseg_cli.config import IGNORE_INDEX
from clipseg_cli.data.labels import IGNORED, LABEL_VALUES, NOT_A_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray


def identity(classes: int) -> dict[int, int]:
    """The number is the class id; 255 is ignored."""
    return {**{i: i for i in range(classes)}, IGNORE_INDEX: IGNORED}


def from_one(classes: int) -> dict[int, int]:
    """The number is the class id + 1; 0 and 255 are ignored."""
    return {0: IGNORED, **{i + 1: i for i in range(classes)}, IGNORE_INDEX: IGNORED}


def listed(numbers: Iterable[int], ignored: Iterable[int] = ()) -> dict[int, int]:
    """The i-th of `numbers` is class i; those of `ignored` that are not among them, and 255, are ignored."""
    return {**dict.fromkeys((*ignored, IGNORE_INDEX), IGNORED), **{n: i for i, n in enumerate(numbers)}}


def renamed(values: Mapping[int, int], ids: Mapping[int, int]) -> dict[int, int]:
    """`values` with other class ids; what is ignored stays ignored."""
    return {number: ids.get(id_, id_) if id_ >= 0 else id_ for number, id_ in values.items()}


def as_table(values: Mapping[int, int]) -> NDArray[np.int32]:
    """The same as a table for `read_label`: [65536] int32, NOT_A_LABEL where nothing is said."""
    table = np.full(LABEL_VALUES, NOT_A_LABEL, np.int32)
    table[list(values.keys())] = list(values.values())
    table.setflags(write=False)
    return table
