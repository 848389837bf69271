"""Label maps whose numbers mean the classes of a list, of their own or of the labels that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.data.annotations._regions import ClassNames
from clipseg_cli.errors import AnnotationError
from clipseg_cli.types import NO_CLASS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from clipseg_cli.types import ClassList, Told


def class_map(
    values: NDArray[Any], classes: ClassList, names: Sequence[str] | None = None, *, ignore: int
) -> Told:
    """Class ids from the numbers of a map.

    Args:
        values: [H, W].
        classes: of the labels that are there.
        names: what the numbers mean, in their order; None where they are the ids of `classes`.
        ignore: the number of pixels without a class.

    Raises:
        AnnotationError: a number that means nothing, or the name of no class.
    """
    ids = ClassNames(classes)
    found, index = np.unique(values, return_inverse=True)
    told = np.zeros(len(found), np.int32)
    many = len(classes) if names is None else len(names)
    for i, value in enumerate(found.tolist()):
        if value == ignore:
            told[i] = NO_CLASS
        elif not 0 <= value < many:
            count = int((values == value).sum())
            raise AnnotationError(
                f"it holds {value} in {count:,} pixels, which is no class: ids go from 0 to {many - 1}, "
                f"{ignore} is none",
                hint="was it made with another class list?",
            )
        else:
            told[i] = value if names is None else ids[names[value]]
    return told[index.reshape(values.shape)]
