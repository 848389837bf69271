"""Taking the tensors out of a TorchScript archive without running what else is in it.

OpenAI published CLIP as such archives. open_clip fetches other files by now; those that lie on a disk still load. They
are a zip with `data.pkl` (modules as objects with attributes), `data/N` (the bytes of the tensors) and `code/`.
`torch.jit.load` compiles and may run that code. Here `code/` stays closed, and `data.pkl` is read by an unpickler that
knows tensors and empty shells of modules, nothing else.
"""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Mapping

    from torch import Tensor

STORED = 0  # zipfile.ZIP_STORED
MAX_ENTRIES = 100_000


class ForbiddenError(Exception):
    """The archive asked for something that is neither a tensor nor a module: the message names it."""


def is_torchscript(names: list[str], root: str) -> bool:
    """Whether a zip with these entries is a TorchScript archive and not what `torch.save` writes."""
    return any(n == f"{root}constants.pkl" or n.startswith(f"{root}code/") for n in names)


def read_torchscript(archive: zipfile.ZipFile, root: str) -> tuple[dict[str, Tensor], bool]:
    """All tensors by name (`visual.conv1.weight`), and whether the network uses QuickGELU.

    Args:
        archive: open for reading.
        root: folder of `data.pkl` inside, with a slash at the end, or empty.

    Raises:
        ForbiddenError: it wants more than tensors.
        Exception: anything, for a damaged or hostile stream; nothing of it has run.
    """
    with archive.open(f"{root}data.pkl") as file:
        reader = _TensorUnpickler(file, archive, root)
        tensors = _flatten(reader.load())
    # The classes are named in the archive: OpenAI's code has its own QuickGELU, plain GELU is torch's module.
    return tensors, not ("GELU" in reader.classes and "QuickGELU" not in reader.classes)


class _Module:
    """Stands for any class of the archive: keeps attributes, does nothing."""

    attributes: dict[str, Any]

    def __new__(cls, *_: Any) -> _Module:
        module = super().__new__(cls)
        module.attributes = {}
        return module

    def __setstate__(self, state: Any) -> None:
        self.attributes = dict(state) if isinstance(state, dict) else {}


@dataclass(frozen=True)
class _Storage:
    content: Tensor


class _TensorUnpickler(pickle.Unpickler):
    """Any name in the stream but those of tensors and modules is refused before it is used."""

    dtypes: ClassVar[Mapping[str, torch.dtype]] = {
        "FloatStorage": torch.float32,
        "HalfStorage": torch.float16,
        "BFloat16Storage": torch.bfloat16,
        "LongStorage": torch.int64,
    }
    """Of the weights and sizes in such archives."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self.archive, self.root = archive, root
        self.classes: set[str] = set()
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            self.classes.add(name)
            return _Module
        if module == "torch" and name in self.dtypes:
            return self.dtypes[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return partial(_rebuild_tensor)  # fresh: the stream may set attributes on what it gets
        if (module, name) == ("collections", "OrderedDict"):  # the backward hooks of a tensor: always empty
            return _Module
        if module == "torch.jit._pickle":  # typed lists of settings, such as a stride; weights never
            return _Module
        raise ForbiddenError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(key).isalnum():
            raise ForbiddenError(f"a {kind!r}")
        if key not in self.storages:
            info = self.archive.getinfo(f"{self.root}data/{key}")
            if info.compress_type != STORED:  # never written so; could unpack to any size
                raise ValueError("compressed tensor")
            content = bytearray(self.archive.read(info))
            tensor = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            self.storages[key] = _Storage(tensor)
        return self.storages[key]


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, _Storage) or min((offset, *size, *stride), default=0) < 0:
        raise ValueError("malformed tensor")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.content.numel():
        raise ValueError("tensor reaches beyond its data")
    return storage.content.as_strided(tuple(size), tuple(stride), offset)


def _flatten(top: Any) -> dict[str, Tensor]:
    """Names such as `visual.conv1.weight` for all tensors below a module; causal masks are no weights."""
    tensors: dict[str, Tensor] = {}
    todo, seen = [("", top)], 0
    while todo:
        prefix, module = todo.pop()
        for name, value in module.attributes.items() if isinstance(module, _Module) else ():
            seen += 1
            if seen > MAX_ENTRIES:  # modules that hold each other
                raise ValueError("endless nesting")
            if isinstance(value, torch.Tensor) and name != "attn_mask":
                tensors[f"{prefix}{name}"] = value
            elif isinstance(value, _Module):
                todo.append((f"{prefix}{name}.", value))
    return tensors
