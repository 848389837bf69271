"""What the cases in `golden-clip/` check: SC-CLIP, ResCLIP, PEARL, FreeCP, FLOSS."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from golden_cases import Case, Tensors

CHECKS: dict[str, Callable[[Case, Tensors], Tensors]] = {}
