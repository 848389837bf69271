"""Blocks of a tower in the hands of `torch.compile`: what stands between the products of matrices becomes one pass.

One block is compiled for any batch and grid, and all others of the tower use it, so that the compiler is at work for a
block and not for a tower. What a method takes a block apart into stays as it is.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from clipseg_cli.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from clipseg_cli.types import Block

WITHOUT = "leave out --compile"


class CompiledBlock:
    """A block of `blocks.py` with another way to be read as it was trained; all else is the block's own.

    Args:
        block: whose parts a method may ask for.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        self.norm1, self.qkv, self.project = block.norm1, block.qkv, block.project
        self.layer_scale, self.mlp, self.pre_mlp = block.layer_scale, block.mlp, block.pre_mlp

    def __call__(self, x: Tensor) -> Tensor:
        """As it was trained, to a rounding.

        Raises:
            ModelError: the compiler failed.
        """
        try:
            found: Tensor = _compiled()(self.block, x)
        except Exception as error:
            if not _is_of_the_compiler(error):
                raise
            inner = getattr(error, "inner_exception", error)  # of the backend, where that failed
            first = str(inner).strip().partition("\n")[0]
            raise ModelError(f"torch could not compile this model: {first}", hint=WITHOUT) from error
        return found


def check_compiler(device: torch.device) -> None:
    """Prove that `torch.compile` is of use on a device.

    Raises:
        UsageError: it is not (docs/speed.md has what was measured), or triton is missing.
    """
    if device.type != "cuda":
        raise UsageError(
            f"--compile is for CUDA: on {device.type} it takes longer than it saves", hint=WITHOUT
        )
    if importlib.util.find_spec("triton") is None:
        raise UsageError("--compile needs triton, which is not installed", hint=WITHOUT)


@cache
def _compiled() -> Callable[[Block, Tensor], Tensor]:
    compiled: Any = torch.compile(_as_trained, dynamic=True)
    return compiled  # type: ignore[no-any-return]


def _as_trained(block: Block, x: Tensor) -> Tensor:
    return block(x)


def _is_of_the_compiler(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException  # loaded with the first block, and with nothing else

    return isinstance(error, TorchDynamoException)
