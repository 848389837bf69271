"""Muon for matrices and filters, AdamW for the rest (https://kellerjordan.github.io/posts/muon/)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable


def orthogonalise(gradient: Tensor, steps: int = 5) -> Tensor:
    """Roughly the nearest semi-orthogonal matrix: a quintic Newton-Schulz iteration in bf16. [..., R, C]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = gradient.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result


class Muon(torch.optim.Optimizer):
    """Momentum whose every step is orthogonalised. A fused q,k,v matrix counts as three."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 0.015,
        momentum: float = 0.95,
        weight_decay: float = 0.02,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient; those of one shape are orthogonalised together."""
        for group in self.param_groups:
            alike: dict[tuple[int, int, int], list[tuple[nn.Parameter, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                rows, columns = p.shape
                parts = 3 if rows == 3 * columns else 1
                update = p.grad.lerp(buffer, group["momentum"]).view(parts, rows // parts, columns)
                alike.setdefault((parts, *update.shape[1:]), []).append((p, update))
            for (_, rows, columns), pairs in alike.items():
                updates = orthogonalise(torch.stack([update for _, update in pairs])).float()
                scale = max(1.0, rows / columns) ** 0.5
                for (p, _), update in zip(pairs, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.view(p.shape), alpha=-group["lr"] * scale)


class FilterMuon(torch.optim.Optimizer):
    """Muon over convolutions: each a matrix of one row for each output channel."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every filter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"]).reshape(len(p), -1)
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(orthogonalise(update).to(p).reshape(p.shape), alpha=-group["lr"] * scale)


def make_optimisers(model: nn.Module, lr_scale: float = 1.0) -> list[torch.optim.Optimizer]:
    """Muon over the matrices inside transformer blocks, AdamW over everything else that learns.

    Args:
        model: what learns.
        lr_scale: factor on the usual learning rates; less than 1 for weights that have learnt before.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        (matrices if "resblocks" in name and p.ndim == 2 else rest).append(p)
    return [
        Muon(matrices, 0.015 * lr_scale),
        torch.optim.AdamW(rest, lr=1e-3 * lr_scale, betas=(0.9, 0.98), weight_decay=0.02),
    ]
