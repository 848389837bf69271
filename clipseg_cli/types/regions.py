"""Sources of region masks: one id map for a whole image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path, PurePosixPath

    import torch
    from numpy.typing import NDArray

    from clipseg_cli.types.images import DecodedImage


class RegionMap(NamedTuple):
    """The regions of one image.

    Attributes:
        ids: whole numbers [h, w] over the whole image, of any size; 0 where there is no region, ids from 1.
        note: what a user should know ("without regions: ..."); may be empty.
    """

    ids: NDArray[Any]
    note: str = ""


class RegionMaker(Protocol):
    """A source that is ready."""

    def __call__(self, images: Sequence[DecodedImage]) -> Sequence[RegionMap]:
        """One map for each image.

        Raises:
            ImageError: one of them has none.
        """


@dataclass(frozen=True)
class RegionTools:
    """What a source gets from those who open it.

    Attributes:
        files: what the user wrote behind its name: a folder of maps, or of weights; may be empty.
        device, dtype: where and in what precision a network computes.
        load: (class of transformers, name on the hub or folder) -> what that class makes of the files, on the CPU.
        read_ids: (folder, name of an image, (H, W) of it) -> its id map in files.
    """

    files: str
    device: torch.device
    dtype: torch.dtype
    load: Callable[[Any, str], Any]
    read_ids: Callable[[Path, PurePosixPath, tuple[int, int]], NDArray[Any]]


@dataclass(frozen=True)
class RegionSource:
    """One source; a file in `regions/` that declares REGIONS is in the registry.

    Attributes:
        open: (tools, **hyper-parameters) -> what makes the maps.
        files: what may stand behind its name: "" for nothing, or a word for it, as in "FOLDER".
        required: something has to.
        packages: that it imports, of the extra "regions".
        weights: on the hub of Hugging Face, where it is a network; its default.
        network: it computes where the model does, some images at once; else in the threads that read.
        ranges: hyper-parameter -> (least, most), or all texts that it may be.
        cost: seconds an image of 500 x 375 takes on one core; 0 where nobody measured.
        summary: one line for help texts.
        paper: arXiv id.
        licence: of code and weights.
    """

    open: Callable[..., RegionMaker]
    files: Literal["", "FOLDER", "WEIGHTS"] = ""
    required: bool = False
    packages: tuple[str, ...] = ()
    weights: str = ""
    network: bool = False
    ranges: Mapping[str, tuple[float, float] | tuple[str, ...]] = field(default_factory=dict)
    cost: float = 0.0
    summary: str = ""
    paper: str = ""
    licence: str = ""
