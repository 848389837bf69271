"""What a named whole chooses for its user: a protocol, a quality, or a model. What the user chose wins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clipseg_cli.config.constants import BUNDLED_MODEL

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


BUNDLED_BRINGS = Brings(hyperparameters={"sc_clip.cls_share": "0", "sc_clip.alike": "0.75"})
"""Of the bundled model, chosen on the training images of samples/emoji-voc. Its class token names what is in the image,
so that a share of it in every patch lets the largest thing speak everywhere; and features of its middle blocks are more
alike than those of the towers that SC-CLIP was made for."""


def model_brings(model: str, pretrained: str | None) -> Brings | None:
    """What a model brings: only weights in the package bring anything.

    Args:
        model: an architecture, or the name of a bundled model.
        pretrained: other weights for it.
    """
    return BUNDLED_BRINGS if model == BUNDLED_MODEL and pretrained in (None, "bundled") else None
