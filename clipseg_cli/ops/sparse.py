"""Sparse matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def sparse_sum(index: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """A sparse matrix of entries of which those at one place add up.

    Args:
        index: [2, N] row and column of each, all within `size`, which nobody checks.
        values: [N].
        size: rows and columns.
    """
    checks = torch.sparse.check_sparse_tensor_invariants
    if not checks.is_enabled():
        checks.disable()  # as it is anyway, but PyTorch 2.11 warns where nobody has said so
    return torch.sparse_coo_tensor(index, values, size).coalesce()
