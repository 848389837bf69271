"""What a named whole chooses for its user: a protocol, or a quality. What the user chose wins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

OFF = "none"
"""Of options that name something: nothing, even where a protocol or a quality would bring it."""


@dataclass(frozen=True, kw_only=True)
class Brings:
    """Options that a named whole chooses where the user chose none.

    Attributes:
        guide: as `--guide`, where the method or the propagation asks for one.
        regions: as `--regions`, where anything asks for them.
        region_vote: as `--region-vote`, where there are regions.
        propagate: as `--propagate`.
        hyperparameters: of methods, refinements and sources of regions, as `--set` takes them; those of what takes no
            part do nothing.
    """

    guide: str = ""
    regions: str = ""
    region_vote: bool = False
    propagate: str = ""
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
