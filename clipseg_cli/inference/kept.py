"""What the network says of the windows of an image before it meets the words: rounded, handed out, and taken back.

A predictor that keeps features rounds them to float16 before anything looks at them, whether they come from the network
or from a file: so both give the same labels, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from clipseg_cli.errors import UsageError
from clipseg_cli.inference.prepare import network_size
from clipseg_cli.types import DenseFeatures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.inference.settings import Settings
    from clipseg_cli.inference.steps import Step
    from clipseg_cli.inference.tiling import Tiling
    from clipseg_cli.types import Method

PADDING = "overhang"
"""What `DenseFeatures.padding` is called in the files of runs."""

MOST = torch.finfo(torch.float16).max
BYTES = 2

_FIELDS = {"keys": ("keys",), "whole": ("whole", "tokens"), "values": ("values", "guide")}
"""What a step needs of the network -> the fields of `DenseFeatures` that it looks at."""


@dataclass(frozen=True)
class Keeper:
    """Which features are kept.

    Attributes:
        fields: of `DenseFeatures`.
    """

    fields: tuple[str, ...]

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Keeper:
        """A keeper of what some steps look at."""
        needs = {name for step in steps for name in step.refinement.needs}
        more = (field for need, fields in _FIELDS.items() if need in needs for field in fields)
        return cls(("features", "objectness", *more))

    def dense(
        self, stored: Sequence[Mapping[str, Tensor] | None], read: Callable[[], DenseFeatures]
    ) -> tuple[DenseFeatures, list[dict[str, Tensor] | None]]:
        """The features of a batch of windows, rounded, and what is to be kept of each: None of what was kept before.

        Args:
            stored: what was kept of each window, or None.
            read: asks the network; called only where a window has nothing stored.
        """
        own = [one for one in stored if one is not None]
        fresh = len(own) < len(stored)
        kept = self._rounded(read()) if fresh else _stacked(own)
        single: dict[str, Any] = {name: value.float() for name, value in kept.items() if name != PADDING}
        top, bottom, left, right = (int(pixels) for pixels in kept[PADDING][0])
        tokens = single.pop("tokens", kept["features"].new_zeros(0))  # kept where somebody asks for them
        features, keys = single.pop("features"), single.pop("keys", None)
        dense = DenseFeatures(features, keys, tokens, padding=(top, bottom, left, right), **single)
        rows = range(len(stored))
        return dense, [{name: value[row] for name, value in kept.items()} if fresh else None for row in rows]

    def _rounded(self, dense: DenseFeatures) -> dict[str, Tensor]:
        """float16, cut to what that can hold; features at unit length, since only their direction counts."""
        found = {name: getattr(dense, name) for name in self.fields}
        found["features"] = F.normalize(dense.features.float(), dim=1)
        # Laid out as they come back from a file, since sums over another layout end in other bits.
        kept = {
            name: value.float().clamp(-MOST, MOST).half().contiguous()
            for name, value in found.items()
            if value is not None
        }
        rows = len(dense.features)
        return kept | {PADDING: torch.tensor([dense.padding] * rows, dtype=torch.int32)}

    def size_of(
        self, size: tuple[int, int], settings: Settings, tiling: Tiling, patch: int, width: int
    ) -> int:
        """About how many bytes are kept of an image of (H, W) pixels, as if all fields were as wide as the words.

        Args:
            size: (H, W) of the image.
            settings, tiling: with which it is read.
            patch: pixels between two features.
            width: D, of the words.
        """
        windows = tiling.windows(network_size(size, settings))
        if tiling.whole_windows:
            cells = len(windows)
        else:
            cells = sum(-(-window.height // patch) * -(-window.width // patch) for window in windows)
        wide = [name for name in self.fields if name not in ("objectness", "whole")]
        return BYTES * cells * width * len(wide)


def _stacked(windows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([one[name] for one in windows]) for name in windows[0]}


def on_device(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """What was kept of a window, where the network is; numbers of pixels stay on the CPU, where they are read."""
    return {
        name: torch.from_numpy(values) if name == PADDING else torch.from_numpy(values).to(device)
        for name, values in arrays.items()
    }


def on_cpu(windows: Sequence[Mapping[str, Tensor] | None]) -> list[dict[str, NDArray[Any]]] | None:
    """What is to be kept of the windows of an image, as arrays; None where nothing is."""
    fresh = [one for one in windows if one is not None]
    return [{name: value.cpu().numpy() for name, value in one.items()} for one in fresh] or None


def check_keeping(method: Method, config: InferenceConfig) -> None:
    """Prove that features do not depend on the words, and are all that is asked of the network.

    Args:
        method: how the tower is read.
        config: the options in force.

    Raises:
        UsageError: they do, or there is more; the message names the option.
    """
    refused = {
        f"--method {config.method_name} reads images with the words in sight, and its features change with them": (
            method.read_twice is not None
        ),
        "--memory reads features of several depths, which are not kept": bool(config.memory),
        "--presence freecp looks at attention between all patches, which is not kept": (
            config.presence == "freecp"
        ),
    }
    for reason in (reason for reason, given in refused.items() if given):
        raise UsageError(f"--keep-features: {reason}", hint="leave out one of the two")
