"""Id maps of regions from files, made by any tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.data.labels import read_values
from clipseg_cli.errors import DatasetError, ImageError

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from numpy.typing import NDArray

MAP_SUFFIXES = (".png", ".npy")


def read_region_ids(folder: Path, name: PurePosixPath, size: tuple[int, int]) -> NDArray[Any]:
    """The id map of an image: NAME.png, palette or grey of up to 16 bits, or whole numbers in NAME.npy.

    Args:
        folder: of the maps.
        name: of the image, without suffix; may hold folders.
        size: (H, W) of the image.

    Returns:
        [H, W] whole numbers; 0 where there is no region.

    Raises:
        ImageError: there is none, it is damaged, it has another size, or it holds something else than ids from 0.
    """
    for suffix in MAP_SUFFIXES:
        path = folder / f"{name}{suffix}"
        if not path.is_file():
            continue
        try:
            values = _array(path) if suffix == ".npy" else read_values(path)
        except DatasetError as error:
            raise ImageError(error.message, hint=error.hint, image=str(path)) from error
        except (OSError, ValueError, EOFError) as error:  # as numpy says that a file is damaged
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ImageError(f"cannot read {path}: {reason}", image=str(path)) from error
        if values.shape != size:
            got = "x".join(map(str, values.shape[::-1]))
            raise ImageError(
                f"{path} has {got} pixels, and the image {size[1]}x{size[0]}",
                hint="make the id map at the size of the image",
                image=str(path),
            )
        if values.size and values.min() < 0:
            raise ImageError(
                f"{path} holds negative ids", hint="0 means no region, and ids begin at 1", image=str(path)
            )
        return np.array(values)
    raise ImageError(f"there is no id map {folder / str(name)}.png or .npy", image=str(name))


def _array(path: Path) -> NDArray[Any]:
    # Mapped, so that a header that claims too much is an error and not a full memory.
    loaded: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(loaded, np.ndarray) or loaded.dtype.kind not in "iub":
        raise ImageError(f"{path} holds no array of whole numbers", image=str(path))
    return loaded
