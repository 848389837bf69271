"""`NAME.npz`: the array `labels` [H, W], and what its numbers mean: `classes`, `background`, `ignore`.

Without `classes` the numbers are the ids of the label maps that are there.
"""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.config import ignore_value
from clipseg_cli.data.annotations._files import open_archive
from clipseg_cli.data.annotations._maps import class_map
from clipseg_cli.data.annotations._regions import check_size
from clipseg_cli.errors import AnnotationError
from clipseg_cli.types import Annotation, AnnotationFormat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.data.annotations._files import Archive
    from clipseg_cli.types import ReadOptions, Told

_MOST_OTHER = 1 << 24  # bytes of an array that is no label map
_HEADER = 1 << 16


def read(path: Path, options: ReadOptions) -> Iterator[Annotation]:
    """The one image of a file."""
    yield Annotation(path.as_posix(), None, partial(_told, path, options))


def _told(path: Path, options: ReadOptions, size: tuple[int, int]) -> Told:
    with open_archive(path) as archive:
        labels = _array(archive, "labels", 8 * size[0] * size[1] + _HEADER)
        if labels.ndim != 2 or labels.dtype.kind not in "iu":
            raise AnnotationError(f"'labels' is {labels.dtype} of shape {labels.shape}, not [H, W] numbers")
        check_size((labels.shape[0], labels.shape[1]), size, "'labels' is")
        if "classes.npy" not in archive.names:
            return class_map(labels, options.classes, ignore=ignore_value(len(options.classes)))
        classes = [str(name) for name in _array(archive, "classes", _MOST_OTHER).ravel().tolist()]
        ignore = _array(archive, "ignore", _MOST_OTHER).ravel() if "ignore.npy" in archive.names else None
        own = ignore_value(len(classes)) if ignore is None or not ignore.size else int(ignore[0])
        return class_map(labels, options.classes, classes, ignore=own)


def _array(archive: Archive, name: str, most: int) -> NDArray[Any]:
    data = archive.read(f"{name}.npy", most)
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, _, kind = read_header(file)
        # Looked at before numpy makes room for what a header claims.
        count = 1
        for side in shape:
            count *= side
        if kind.hasobject or count * kind.itemsize != len(data) - file.tell():
            raise AnnotationError(f"'{name}' is not the array that its header describes")
        file.seek(0)
        found: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except AnnotationError:
        raise
    except Exception as error:  # of a header that is no header, parsers raise nearly anything
        raise AnnotationError(f"'{name}' is damaged: {error}") from error
    return found


FORMAT = AnnotationFormat(
    read,
    lambda path: path.suffix.lower() == ".npz" and path.is_file(),
    (".npz",),
    summary="arrays of labels and class names",
)
