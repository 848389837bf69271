"""Sparse matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


TABLE = 1 << 21
"""Entries of a matrix that is written down as a whole, on a CPU."""


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


def sparse_product(index: Tensor, values: Tensor, size: tuple[int, int], dense: Tensor) -> Tensor:
    """`sparse_sum(index, values, size) @ dense`, [columns, D] -> [rows, D].

    On a CPU sorting hundreds of thousands of entries takes ten times as long as adding them up in a table. On other
    devices it does not, and sums in a table depend there on who comes first.
    """
    rows, columns = size
    product: Tensor
    if values.device.type != "cpu" or rows * columns > TABLE:
        product = torch.sparse.mm(sparse_sum(index, values, size), dense)
    else:
        table = values.new_zeros(rows * columns).scatter_add_(0, index[0] * columns + index[1], values)
        product = table.view(rows, columns) @ dense
    return product
