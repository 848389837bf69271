"""Ground truth in: one label image to class ids. Wrong images are refused, never guessed at."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from clipseg_cli.data.opening import open_image
from clipseg_cli.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types import Dataset, Sample

IGNORED = -1
"""Class id of pixels that nobody scores."""

NOT_A_LABEL = -2
"""Table entry of numbers that no label file may hold."""

LABEL_VALUES = 1 << 16

_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG")
_ID_MODES = ("1", "L", "P", "I")
_MAX_PIXELS = 500_000_000  # a damaged header may claim any size
_SHOWN_RUNS = 12

# Pillow stretches grey of few bits to 0..255; these are the factors.
_STRETCHED = {"L;2": 85, "L;4": 17}


def read_label(sample: Sample, dataset: Dataset, size: tuple[int, int] | None = None) -> NDArray[np.int32]:
    """The ground truth of one image; may run in several threads at once.

    Args:
        sample: of that data set.
        dataset: whose `label_ids` say what the numbers mean.
        size: (H, W) of the image, where known.

    Returns:
        [H, W] class ids, -1 where pixels are ignored.

    Raises:
        DatasetError: no label file, an unreadable one, one that does not hold class ids, one of another size
            than the image, or a number that is not a class.
    """
    if sample.label is None or dataset.label_ids is None:
        raise DatasetError(f"{sample.source} has no ground truth", hint=f"{dataset.root} has no label file")
    numbers = read_values(sample.label, size=size, source=str(sample.source))
    ids: NDArray[np.int32] = np.take(dataset.label_ids, numbers)
    if ids.size and ids.min() <= NOT_A_LABEL:
        raise _unknown_number(sample.label, numbers[ids <= NOT_A_LABEL], dataset)
    return ids


def read_values(path: Path, *, size: tuple[int, int] | None = None, source: str = "") -> NDArray[Any]:
    """The numbers in a label image as they stand in the file: palette indices, or grey of 1 to 16 bits.

    Args:
        path: the file; EXIF orientation is ignored.
        size: (H, W) it must have.
        source: of the image to which it belongs, for the message.

    Returns:
        [H, W] in [0, 65535]; uint8, or uint16 for 16-bit files.

    Raises:
        DatasetError: as `read_label`.
    """
    with _opened(path) as image:
        _check(image, path, size, source)
        factor = _STRETCHED.get(_raw_mode(image), 1)
        numbers: NDArray[Any] = np.asarray(image)
    return _in_range(numbers, path) // factor if factor > 1 else _in_range(numbers, path)


def label_size(path: Path) -> tuple[int, int]:
    """(H, W) of a label image, from its header alone: a small file may claim a size that fills the memory.

    Raises:
        DatasetError: as `read_label`.
    """
    with _opened(path) as image:
        return image.size[1], image.size[0]


def label_texts(path: Path) -> dict[str, str]:
    """What a label image says beside its pixels, by the names of its text chunks.

    Raises:
        DatasetError: as `read_label`.
    """
    with _opened(path) as image:
        return {str(name): text for name, text in image.info.items() if isinstance(text, str)}


def is_decodable(path: Path) -> bool:
    """Whether a file is a whole image of any kind, class ids or not."""
    try:
        with _opened(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                return False
            image.load()
    except DatasetError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A label image, not yet decoded.

    Raises:
        DatasetError: it cannot be opened, or the block cannot decode it.
    """
    try:
        with path.open("rb") as file, open_image(file, _FORMATS) as image:
            yield image
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"no such label file: {path}") from error
    except IsADirectoryError as error:
        raise DatasetError(f"{path} is a folder, not a label image") from error
    except PermissionError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    except UnidentifiedImageError as error:
        raise DatasetError(f"{path} is not an image that can be read", hint="labels are PNG files") from error
    except Exception as error:
        # Damaged files make decoders raise nearly anything: OSError, SyntaxError, struct.error, ValueError.
        reason = str(error) or type(error).__name__
        raise DatasetError(f"{path} is damaged or cut short: {reason}", hint="fetch it again") from error


def _check(image: Image.Image, path: Path, size: tuple[int, int] | None, source: str) -> None:
    """Refuse from the header alone what cannot be class ids of the image."""
    width, height = image.size
    if image.format == "JPEG":
        raise DatasetError(
            f"{path} is a JPEG, whose compression changes class ids", hint="take the original PNG"
        )
    if size is not None and size != (height, width):
        raise DatasetError(
            f"{source} is {size[1]}x{size[0]}, but its label {path} is {width}x{height}",
            hint="a label belongs to one image, pixel by pixel",
        )
    if width * height > _MAX_PIXELS:
        raise DatasetError(f"{path} claims {width}x{height} pixels: not a label image")
    if image.mode not in _ID_MODES and not image.mode.startswith("I;"):
        article = "an" if image.mode[0] in "RLF" else "a"
        raise DatasetError(
            f"{path} is {article} {image.mode} image, not class ids", hint=_colours_hint(image)
        )


def _colours_hint(image: Image.Image) -> str:
    """Where the colours come from, if they tell.

    The palette of VOC spreads the bits of an id over the highest bits of red, green and blue, so that with 256
    ids the low five bits of red and green and the low six of blue are always 0 (VOCcode/VOClabelcolormap.m).
    """
    if image.mode not in ("RGB", "RGBA"):
        return "labels are palette or grey PNG files"
    colours = np.asarray(image)[..., :3]
    if (colours & np.array([31, 31, 63], np.uint8)).any():
        return "labels are palette or grey PNG files, in which a pixel is the number of its class"
    return (
        "all its colours are those of the VOC palette: a viewer or editor saved a palette PNG as RGB; "
        "take the original"
    )


def _raw_mode(image: Image.Image) -> str:
    """How the pixels lie in the file; asked before they are decoded."""
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else ""
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _in_range(numbers: NDArray[Any], path: Path) -> NDArray[Any]:
    """Wide integers as uint16, 1-bit as uint8.

    Raises:
        DatasetError: they do not fit.
    """
    if numbers.dtype == np.bool_:
        return numbers.astype(np.uint8)
    if numbers.dtype.itemsize <= 2 and numbers.dtype.kind == "u":
        return numbers
    if numbers.size and (numbers.min() < 0 or numbers.max() >= LABEL_VALUES):
        low, high = numbers.min(), numbers.max()
        raise DatasetError(
            f"{path} holds numbers from {low} to {high}: class ids are 0 to {LABEL_VALUES - 1}"
        )
    return numbers.astype(np.uint16)


def _unknown_number(path: Path, wrong: NDArray[Any], dataset: Dataset) -> DatasetError:
    numbers, counts = np.unique(wrong, return_counts=True)
    pixels = f"{counts[0]:,} pixel{'s' if counts[0] > 1 else ''}"
    more = len(numbers) - 1
    if more:
        pixels += f", and {more} more such number{'s' if more > 1 else ''}"
    whose = dataset.benchmark or dataset.title
    return DatasetError(
        f"{path}: {numbers[0]} is no label of {whose} ({pixels}); labels are {_allowed(dataset)}",
        hint=f"the files were taken for {dataset.labels_are}" if dataset.labels_are else "",
    )


def _allowed(dataset: Dataset) -> str:
    """The numbers that may stand in a label file: "0 to 20, 255 (ignored)"."""
    assert dataset.label_ids is not None
    runs = []
    for kind, ending in ((dataset.label_ids >= 0, ""), (dataset.label_ids == IGNORED, " (ignored)")):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], kind.astype(np.int8), [0]))))
        for low, high in edges.reshape(-1, 2).tolist():
            runs.append((f"{low}" if high == low + 1 else f"{low} to {high - 1}") + ending)
    return ", ".join(runs[:_SHOWN_RUNS]) + (" ..." if len(runs) > _SHOWN_RUNS else "")
