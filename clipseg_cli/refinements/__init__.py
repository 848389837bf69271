"""One file = one step between what a method reads and the labels; the folder is the registry.

A step is on when the option of its name has a value: `--pamr 10`, or `--set pamr=10` for any of them. Keyword arguments
of its functions are hyper-parameters: `--set pamr.dilations=8,16`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.utils.registry import Registry

if TYPE_CHECKING:
    from clipseg_cli.types import Refinement

REFINEMENTS: Registry[Refinement] = Registry(__name__, "REFINEMENT", "refinement")
