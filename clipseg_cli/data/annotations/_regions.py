"""What formats of regions share: names of classes, outlines that are looked at, and a canvas without overlaps."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.errors import AnnotationError, did_you_mean
from clipseg_cli.ops.polygons import fill
from clipseg_cli.types import UNTOLD
from clipseg_cli.utils.text import distinct_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from clipseg_cli.ops.shapes import Patch
    from clipseg_cli.types import ClassList, ReadOptions, Told

logger = logging.getLogger(__name__)

REACH = 1.0
"""Pixels that an outline may reach beyond the image; tools round, and some count from the centres of pixels."""


class ClassNames:
    """Class ids by the names that a file has for them.

    Args:
        classes: whose ids.
        forbidden, taken: what the format cannot hold, as for `utils.text.distinct_names`.
    """

    def __init__(self, classes: ClassList, forbidden: str = "", taken: tuple[str, ...] = ()) -> None:
        self._names = classes.names
        own = {name: i for i, name in enumerate(classes.names)}
        written = {n: i for i, n in enumerate(distinct_names(classes.names, forbidden, taken))}
        # As files in UTF-8 hold them.
        plain = {name.encode(errors="replace").decode(): i for name, i in own.items()}
        self._ids = {**own, **plain, **written}

    def __getitem__(self, name: str) -> int:
        """The id of a class.

        Raises:
            AnnotationError: there is none of that name.
        """
        found = self._ids.get(name)
        if found is None:
            raise AnnotationError(f"'{name}' is no class of the labels", hint=did_you_mean(name, self._names))
        return found


class Canvas:
    """A label map on which regions are painted.

    Args:
        size: (H, W).
        options: whether later regions may lie on earlier ones of other classes.
        where: file and image, for notes.
    """

    def __init__(self, size: tuple[int, int], options: ReadOptions, where: str) -> None:
        self.labels: Told = np.full(size, UNTOLD, np.int32)
        self._options, self._where = options, where

    def paint(self, class_id: int, patch: Patch, name: str) -> None:
        """Give the pixels of a patch to a class.

        Args:
            class_id: of the class.
            patch: inside the image.
            name: of the region, for messages: "annotation 7".

        Raises:
            AnnotationError: some of them belong to another class already.
        """
        top, left, mask = patch
        classes = self._options.classes.names
        if not mask.any():
            logger.warning(
                "%s: %s (%s) covers no centre of a pixel and is left out",
                self._where,
                name,
                classes[class_id],
            )
            return
        under = self.labels[top : top + mask.shape[0], left : left + mask.shape[1]]
        clash = mask & (under >= 0) & (under != class_id)
        if clash.any() and not self._options.on_top:
            other = classes[int(under[clash][0])]
            raise AnnotationError(
                f"{int(clash.sum()):,} pixels are both {other} and {classes[class_id]}",
                hint="--on-top lets later regions lie on earlier ones",
            )
        under[mask] = class_id


@contextmanager
def about(name: str) -> Iterator[None]:
    """Errors in the block begin with what they are about: "annotation 7: ..."."""
    try:
        yield
    except AnnotationError as error:
        raise AnnotationError(f"{name}: {error.message}", hint=error.hint) from error
    except ValueError as error:  # of run lengths
        raise AnnotationError(f"{name}: {error}") from error


def ring_of(points: Any, size: tuple[int, int]) -> NDArray[np.float64]:
    """An outline [n, 2] from pairs of numbers.

    Raises:
        AnnotationError: no numbers, fewer than three corners, or a corner outside the image.
    """
    try:
        ring = np.array(points, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise AnnotationError("its corners are no pairs of numbers") from error
    if ring.ndim != 2 or ring.shape[1] != 2 or not np.isfinite(ring).all():
        raise AnnotationError("its corners are no pairs of numbers")
    if len(ring) < 3:
        raise AnnotationError(f"a polygon of {len(ring)} corners has no inside")
    check_inside(ring, size)
    return ring


def check_inside(ring: NDArray[np.float64], size: tuple[int, int]) -> None:
    """Prove that corners [n, 2] lie in the image.

    Raises:
        AnnotationError: one does not.
    """
    outside = ((ring < -REACH) | (ring > np.array(size[::-1]) + REACH)).any(1)
    if outside.any():
        x, y = ring[outside][0].tolist()
        raise AnnotationError(f"a corner at {x:g}, {y:g} lies outside the image of {size[1]}x{size[0]}")


def polygon(points: Any, size: tuple[int, int]) -> Patch:
    """The pixels of a polygon.

    Raises:
        AnnotationError: as `ring_of`.
    """
    return fill(ring_of(points, size), *size)


def pairs(flat: Any) -> Any:
    """[x, y, x, y ...] as pairs.

    Raises:
        AnnotationError: an odd number of them.
    """
    if not isinstance(flat, list) or len(flat) % 2:
        raise AnnotationError("its corners are no pairs of numbers")
    return list(zip(flat[::2], flat[1::2], strict=True))


def check_size(given: tuple[int, int], size: tuple[int, int], what: str) -> None:
    """Prove that what a file says has the size of the label map.

    Raises:
        AnnotationError: it has not.
    """
    if given != size:
        raise AnnotationError(f"{what} {given[1]}x{given[0]}, the label map {size[1]}x{size[0]}")


def box_patch(box: tuple[int, int, int, int], mask: NDArray[np.bool_], size: tuple[int, int]) -> Patch:
    """A mask [height, width] at its place.

    Args:
        box: left, top, width, height.
        mask: of the box.
        size: (H, W) of the image.

    Raises:
        AnnotationError: the box does not lie in the image.
    """
    left, top, width, height = box
    if min(left, top) < 0 or left + width > size[1] or top + height > size[0]:
        raise AnnotationError(
            f"a mask of {width}x{height} at {left}, {top} reaches outside the image of {size[1]}x{size[0]}"
        )
    return top, left, mask
