"""Exact nearest neighbours among many vectors, and what they say together; block by block, so that memory stays small.

Letters: B vectors in a bank, R queries, D features, K neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 16
"""Vectors that are compared at once."""


def nearest(queries: Tensor, keys: Tensor, k: int, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """The `k` keys with the largest inner products, best first.

    Args:
        queries: [R, D].
        keys: [B, D] on any device and of any type; blocks of it go where the queries are, in their type.
        k: neighbours.
        block: keys at once.

    Returns:
        Rows of the bank [R, k], -1 where it is smaller than `k`; and the products [R, min(k, B)].
    """
    most = min(k, len(keys))
    products = queries.new_full((len(queries), 0), -torch.inf)
    rows = torch.zeros((len(queries), 0), dtype=torch.long, device=queries.device)
    for start in range(0, len(keys), block):
        found = queries @ keys[start : start + block].to(queries).mT
        own = found.topk(min(most, found.shape[1]), dim=1)  # few of each block, so that joining costs nothing
        products, rows = torch.cat([products, own.values], 1), torch.cat([rows, own.indices + start], 1)
        best = products.topk(min(most, products.shape[1]), dim=1)
        products, rows = best.values, rows.gather(1, best.indices)
    return F.pad(rows, (0, k - most), value=-1), products


def support(values: Tensor, rows: Tensor) -> Tensor:
    """Unit mean of the values of each query's neighbours: [B, D], [R, K] -> [R, D]; rows below 0 are left out.

    Source: zdk258/CorrCLIP@103bc18 (second version): no weights, and no limit on the similarity.
    """
    there = (rows >= 0)[:, :, None]
    chosen = values[rows.clamp(min=0)].float() * there
    return F.normalize(chosen.sum(dim=1) / there.sum(dim=1).clamp(min=1), dim=1)
