"""Reading a weight file of any layout into named tensors, without ever running code from it.

Formats are told by their first bytes, not by the suffix: safetensors, `torch.save` (new and old), training
checkpoints, and the TorchScript archives in which OpenAI published CLIP.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from clipseg_cli.errors import ModelError
from clipseg_cli.models.weights import hub
from clipseg_cli.models.weights.torchscript import ForbiddenError, is_torchscript, read_torchscript

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

OPENAI_ENTRIES = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Sizes that OpenAI stored between the weights; no other training code does."""

CONTAINERS = ("state_dict", "model_state_dict", "model", "module")
PREFIXES = ("module.", "_orig_mod.", "model.")

DOWNLOAD_AGAIN = "download it again and compare its size with the one announced"
SAVE_PLAIN = "save the bare weights: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"


SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt", ".npz")
"""Text that ends so, or holds a slash, can only be the name of a file."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, as a CLIP of open_clip names them, and what the file tells about the activation.

    Attributes:
        tensors: name -> tensor on the CPU, in the precision of the file.
        quick_gelu: which activation the file was trained with, or None when it does not say.
    """

    tensors: dict[str, Tensor]
    quick_gelu: bool | None = None


def find_weight_file(text: str, hint: str) -> Path | None:
    """The file (or folder, which reading refuses) of that name; None for what may be a name of another kind.

    Raises:
        ModelError: it can only be the name of a file, and there is none; `hint` says what to do.
    """
    # Of the module os, whose functions take any text: over-long, with a null byte, of an unknown user.
    path = Path(os.path.expanduser(text))  # noqa: PTH111
    if text.strip() and os.path.exists(path):  # noqa: PTH110
        return path
    if len(path.parts) > 1 or path.suffix.lower() in SUFFIXES:
        raise ModelError(f"{text}: no such weight file", hint=hint)
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the weights in `path`.

    Raises:
        ModelError: no such file, not weights, damaged, or it wants to run code.
    """
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not a weight file", hint="name the file inside it")
    if not path.is_file():
        raise ModelError(f"{path}: no such weight file")
    try:
        with path.open("rb") as file:
            head = file.read(512)
        tensors, quick_gelu = _read_by_content(path, head)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    if tensors.keys() >= OPENAI_ENTRIES:
        quick_gelu = True
    return Checkpoint({k: v for k, v in tensors.items() if k not in OPENAI_ENTRIES}, quick_gelu)


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says about itself; nothing for a file of any other kind."""
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def _read_by_content(path: Path, head: bytes) -> tuple[dict[str, Tensor], bool | None]:
    if not head:
        raise ModelError(f"{path} is empty (0 bytes)", hint=DOWNLOAD_AGAIN)
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000:
        try:
            return _flat_weights(path, load_file(path)), None
        except SafetensorError as error:
            raise _damaged(path, error) from error
    if head[:1] == b"\x80":
        return _flat_weights(path, _torch_load(path, mmap=False)), None
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ModelError(f"{path} is a web page, not weights", hint="the download was a log-in or error page")
    if text.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is a Git LFS pointer, not the weights", hint="fetch it with: git lfs pull")
    raise ModelError(
        f"{path} is not a weight file", hint="wanted: safetensors, or what torch.save or OpenAI's CLIP wrote"
    )


def _read_zip(path: Path) -> tuple[dict[str, Tensor], bool | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            data = next((n for n in names if n == "data.pkl" or n.endswith("/data.pkl")), None)
            if data is None:
                raise ModelError(f"{path} is a zip archive without PyTorch weights in it")
            root = data[: -len("data.pkl")]
            if is_torchscript(names, root):
                return _read_torchscript(path, archive, root)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # also of names that are no text
        raise _damaged(path, error) from error
    return _flat_weights(path, _torch_load(path, mmap=True)), None


def _torch_load(path: Path, mmap: bool) -> Any:
    try:
        with hub.quiet():  # torch warns of what the message below says
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if "Unsupported operand 149" in str(error):  # FRAME, with which protocols 4 and 5 begin
            raise ModelError(
                f"{path} is a pickle that torch.save did not write; not opened, since it could run code",
                hint=SAVE_PLAIN,
            ) from error
        found = re.search(r"(?:GLOBAL|class|function)\s+([\w.]+\.[\w.]+)", str(error))
        if found is None:
            raise _damaged(path, error) from error
        raise _wants_to_run(path, found[1]) from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a file that was cut short or changed may fail anywhere, as with struct.error
        raise _damaged(path, error) from error


def _flat_weights(path: Path, content: Any) -> dict[str, Tensor]:
    """The state dict inside a training checkpoint, without the prefixes that wrappers add."""
    for key in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a table of weights", hint=SAVE_PLAIN)
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not tensors:
        raise ModelError(f"{path} holds no weights (found: {_first(content)})", hint=SAVE_PLAIN)
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), None):
        tensors = {k[len(prefix) :]: v for k, v in tensors.items()}
    return tensors


def _read_torchscript(path: Path, archive: zipfile.ZipFile, root: str) -> tuple[dict[str, Tensor], bool]:
    try:
        tensors, quick_gelu = read_torchscript(archive, root)
    except ForbiddenError as error:
        raise _wants_to_run(path, str(error)) from error
    except OSError:
        raise
    except Exception as error:  # a hostile stream may fail anywhere; nothing of it has run
        raise _damaged(path, error) from error
    if not tensors:
        raise ModelError(f"{path} is a TorchScript archive without weights in it")
    return tensors, quick_gelu


def _first(content: Mapping[Any, Any]) -> str:
    names = [str(k)[:40] for k in list(content)[:3]]
    return ", ".join(names) + (", ..." if len(content) > 3 else "") if names else "nothing"


def _damaged(path: Path, error: Exception) -> ModelError:
    reason = next(iter(str(error).splitlines()), "")[:120] or type(error).__name__
    return ModelError(f"{path} is damaged or cut short ({reason})", hint=DOWNLOAD_AGAIN)


def _wants_to_run(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} is not only weights: it wants to run code when opened ({what}); refused",
        hint=f"if you trust where it comes from, {SAVE_PLAIN}",
    )
