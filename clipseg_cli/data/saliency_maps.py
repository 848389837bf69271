"""Saliency maps from files, made by any tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.data.opening import open_image
from clipseg_cli.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from numpy.typing import NDArray
    from PIL import Image

MAP_SUFFIXES = (".npy", ".png", ".tif", ".tiff")
_FORMATS = ("PNG", "TIFF")
_MOST_PIXELS = 1_000_000_000
_FULL = {"1": 1, "L": 255, "I;16": 65_535, "I;16B": 65_535, "I;16L": 65_535, "F": 1}
"""Mode of a grey image -> the value that means 1."""


def read_saliency(folder: Path, name: PurePosixPath) -> NDArray[np.float32]:
    """The map of an image: NAME.npy, or a grey image of 1, 8 or 16 bits, or of floats.

    Returns:
        [h, w] in [0, 1], of any size.

    Raises:
        ImageError: there is none, or it holds something else.
    """
    for suffix in MAP_SUFFIXES:
        path = folder / f"{name}{suffix}"
        if not path.is_file():
            continue
        try:
            values = _array(path) if suffix == ".npy" else _image(path)
        except ImageError:
            raise
        except Exception as error:  # damaged files fail in as many ways as they can be broken
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ImageError(f"cannot read {path}: {reason}", image=str(path)) from error
        if values.ndim != 2 or not values.size or not np.isfinite(values).all():
            raise ImageError(f"{path} is no map of values from 0 to 1", image=str(path))
        if values.min() < 0 or values.max() > 1:
            raise ImageError(f"{path} is no map of values from 0 to 1", image=str(path))
        return values
    raise ImageError(f"there is no saliency map {folder / str(name)}.npy or .png", image=str(name))


def _array(path: Path) -> NDArray[np.float32]:
    # Mapped, so that a header that claims too much is an error and not a full memory.
    loaded: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(loaded, np.ndarray) or loaded.dtype.kind not in "fiub":
        raise ImageError(f"{path} holds no array of numbers", image=str(path))
    return np.array(loaded, np.float32)


def _image(path: Path) -> NDArray[np.float32]:
    with path.open("rb") as file, open_image(file, _FORMATS) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ImageError(f"{path} claims {image.width}x{image.height} pixels", image=str(path))
        grey = _grey(image)
        if grey is None:
            raise ImageError(
                f"{path} is an image of mode {image.mode}, not grey",
                hint="save saliency as grey of 8 or 16 bits, or as .npy",
                image=str(path),
            )
        values, full = grey
    return np.asarray(values / full, np.float32)


def _grey(image: Image.Image) -> tuple[NDArray[Any], int] | None:
    """Values and the one that means 1; None for an image in colours."""
    if image.mode == "P":  # as some tools save grey: the palette says how bright an index is
        colours = np.asarray(image.convert("RGB"))
        return (colours[..., 0], 255) if (colours == colours[..., :1]).all() else None
    if image.mode == "I":  # 16 bits, as some versions of Pillow open them
        return np.asarray(image), 65_535
    full = _FULL.get(image.mode)
    return None if full is None else (np.asarray(image), full)
