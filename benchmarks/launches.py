"""What the loop asks of a device beside the image tower: calls, copies and host synchronisations of an image.

    python -m benchmarks.launches
    python -m benchmarks.launches --device cuda --option presence=evidence

On an accelerator each call costs the host 5 to 10 us whatever its size, and a synchronisation empties the queue: so
these counts bound how many images a second a fast tower can be fed. They need no accelerator: on "meta", the default
without one, tensors have shapes and no content, each operator is still dispatched, and what would wait for content is
noticed and answered with zeros. Counted is what reaches PyTorch's dispatcher below autograd:

- a call: each aten operator; those that only make a view (slices, reshapes) launch no kernel and are shown apart;
- a copy: `_to_copy` or `copy_` between host and device;
- a synchronisation: an operator that needs content on the host (`.item()`, `bool()`, `.tolist()`) or whose result has
  a shape that depends on content (`nonzero`, masks as indices, `unique`).

The tower is a stand-in that hands out features of the right shape; nothing inside it counts.
"""

from __future__ import annotations

import argparse
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from clipseg_cli.config import InferenceConfig
from clipseg_cli.data.classes import load_classes
from clipseg_cli.inference.predictor import Predictor
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.inference.steps import read_chosen
from clipseg_cli.methods import find_method
from clipseg_cli.ops.similarity import cosine_logits
from clipseg_cli.types import DecodedImage, DenseFeatures, ImageSource, Method, Reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from clipseg_cli.inference.prepare import Prepared

IMAGES = 16
ONE_SIZE = ((375, 500),) * IMAGES
MIXED = tuple((375 + 7 * (i % 4) - 3 * (i % 3), 500 - 11 * (i % 5)) for i in range(IMAGES))
"""(H, W) of photographs: all of one size, and hardly two of one."""

ANSWERED_BY_HOST = ("_local_scalar_dense", "is_nonzero", "equal")
SHAPED_BY_CONTENT = ("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive")


@dataclass
class Counts:
    """What was asked of a device.

    Attributes:
        calls: operator -> how often it was dispatched.
        views: how many of these calls only made a view.
        copies: between host and device.
        waits: operator -> how often the host had to wait for it.
    """

    calls: Counter[str] = field(default_factory=Counter)
    views: int = 0
    copies: int = 0
    waits: Counter[str] = field(default_factory=Counter)


class Counting(TorchDispatchMode):
    """Counts all operators while it is on; of tensors without content it makes up what the host asks for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts, self._paused = Counts(), False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note an operator, and run it."""
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if not self._concerns(args, kwargs):
            return func(*args, **kwargs)  # of tensors that stay on the host
        if func._can_decompose():  # made of other operators, as is seen only where gradients are on
            with self:
                return func.decompose(*args, **kwargs)
        self.counts.calls[name] += 1
        self.counts.views += _makes_view(func)
        source, target = _between(name, args, kwargs)
        if (source == "cpu") != (target == "cpu"):
            self.counts.copies += 1
        waits = name in ANSWERED_BY_HOST + SHAPED_BY_CONTENT or (name == "index" and _has_mask(args[1]))
        self.counts.waits[name] += waits
        first = args[0][0] if args and isinstance(args[0], (list, tuple)) else args[0] if args else None
        if not (isinstance(first, torch.Tensor) and first.is_meta):
            return func(*args, **kwargs)
        if source == "meta" and target == "cpu":
            return torch.zeros(first.shape, dtype=kwargs.get("dtype") or first.dtype)
        return _made_up(name, first) if waits else func(*args, **kwargs)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing counts in the block."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _concerns(self, args: Any, kwargs: Any) -> bool:
        """Whether a tensor on a device takes part, or is made."""
        tensors = [one for one in _flat(args) if isinstance(one, torch.Tensor)]
        made = kwargs.get("device")
        return any(one.device.type != "cpu" for one in tensors) or (made is not None and made.type != "cpu")


def _flat(values: Any) -> Iterator[Any]:
    for one in values:
        if isinstance(one, (list, tuple)):
            yield from _flat(one)
        else:
            yield one


def _makes_view(func: Any) -> bool:
    found = [one.alias_info for one in func._schema.returns]
    return any(one is not None and not one.is_write for one in found)


def _between(name: str, args: Any, kwargs: Any) -> tuple[str, str]:
    """Kinds of device that an operator reads from and writes to, where it is a copy."""
    if name == "copy_":
        return args[1].device.type, args[0].device.type
    if name == "_to_copy":
        own = args[0].device
        return own.type, (kwargs.get("device") or own).type
    return "", ""


def _has_mask(indices: Any) -> bool:
    return any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in indices)


def _made_up(name: str, tensor: Tensor) -> Any:
    """What stands for a content that is not there: zero, or one row."""
    if name == "_local_scalar_dense":
        return 0 if not tensor.is_floating_point() else 0.0
    if name in ("is_nonzero", "equal"):
        return False
    if name == "nonzero":
        return tensor.new_zeros((1, tensor.ndim), dtype=torch.long)
    if name == "index":
        return tensor[:1]
    raise NotImplementedError(f"{name} has no content on a device of shapes alone; use --device cpu or cuda")


class StandIn:
    """A `DenseModel` and its reader that hand out features of the shapes of ViT-B-16, of one patch in 16 pixels."""

    name, pretrained, fingerprint = "stand-in", "", "0"
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    image_size, short_side, logit_scale, words = 224, 336, 100.0, None
    patch, width, dim = 16, 768, 512

    def __init__(self, counting: Counting) -> None:
        self.counting, self.how = counting, Reading()

    def reader(self, method: Method | None, how: Reading) -> StandIn:
        """Itself."""
        del method
        self.how = how
        return self

    def __call__(self, image: Tensor, regions: Tensor | None = None) -> DenseFeatures:
        """Features of zeros; making them does not count."""
        del regions
        with self.counting.paused():
            grid = [-(-side // self.patch) for side in image.shape[2:]]
            tokens = image.new_zeros(len(image), self.width, *grid)
            features = image.new_zeros(len(image), self.dim, *grid)
            whole = image.new_zeros(len(image), self.dim) if self.how.whole else None
            return DenseFeatures(features, tokens if self.how.keys else None, tokens, whole=whole)

    logits = staticmethod(cosine_logits)


def main() -> None:
    """Parse, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = "cuda" if torch.cuda.is_available() else "meta"
    parser.add_argument("--device", default=default, help="meta counts without an accelerator")
    parser.add_argument("--classes", default="voc21")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of segment")
    parser.add_argument("--operators", action="store_true", help="show which")
    options = parser.parse_args()
    chosen = dict(one.split("=", 1) for one in options.option)
    console = Console()
    table = Table(title=f"An image beside the tower, {IMAGES} at once, {options.classes}, {options.device}")
    for column in ("", "aten calls", "without views", "copies", "synchronisations"):
        table.add_column(column, justify="right" if column else "left")
    for title, sizes in (("one size", ONE_SIZE), ("mixed sizes", MIXED)):
        counts = count(torch.device(options.device), sizes, options.classes, chosen)
        calls, waits = counts.calls.total(), counts.waits.total()
        numbers = (calls, calls - counts.views, counts.copies, waits)
        table.add_row(title, *(f"{number / len(sizes):.1f}" for number in numbers))
        if options.operators:
            console.print(title, counts.calls.most_common(), +counts.waits)
    console.print(table)


def count(
    device: torch.device,
    sizes: Sequence[tuple[int, int]],
    classes: str = "voc21",
    options: dict[str, Any] | None = None,
) -> Counts:
    """What images of these sizes (H, W), labelled at once, ask of a device when such sizes have been seen before."""
    counting = Counting()
    predictor = make_predictor(counting, device, classes, options or {})
    images = [make_image(predictor, size) for size in sizes]
    with counting:
        for _ in range(2):  # the first time makes what is kept for a size
            counting.counts = Counts()
            for _ in predictor.predict(images):
                pass
    return counting.counts


def make_predictor(
    counting: Counting, device: torch.device, classes: str, options: dict[str, Any]
) -> Predictor:
    """The loop around the stand-in; all windows of a batch of images go through it at once."""
    config = InferenceConfig(classes=classes, method="maskclip", batch_size=8 * IMAGES, **options)
    words, protocol = load_classes(classes), find_protocol(config.protocol)
    return Predictor(
        StandIn(counting),
        find_method("maskclip"),
        words,
        torch.zeros(len(words.queries), StandIn.dim, device=device),
        config,
        device=device,
        dtype=torch.float32,
        chosen=read_chosen(config, protocol, "maskclip"),
    )


def make_image(predictor: Predictor, size: tuple[int, int]) -> Prepared:
    """An image of one colour."""
    image = DecodedImage(ImageSource(None, PurePosixPath("x")), np.zeros((*size, 3), np.uint8))
    return predictor.prepare(image)


if __name__ == "__main__":
    main()
