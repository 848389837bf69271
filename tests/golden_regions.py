"""What the cases in `golden-regions/` check: id maps, CorrCLIP, its votes and banks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from golden_cases import Case, Tensors

CHECKS: dict[str, Callable[[Case, Tensors], Tensors]] = {}
