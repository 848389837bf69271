"""`--quality`: how far to go, without knowing the names of methods and networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clipseg_cli.config.brings import Brings
from clipseg_cli.config.constants import BUNDLED_MODEL

Kind = Literal["clip", "bundled", "other"]
"""Towers that a quality is told for: CLIP's own ViTs, the model in the package, and all others."""

EOMT = "EoMT: tue-mps/coco_panoptic_eomt_large_640 (MIT)"
DINO = "DINO: {} of timm (Apache-2.0)"
PACKAGES = 'pip install "clipseg-cli[regions]"'


@dataclass(frozen=True, kw_only=True)
class Quality(Brings):
    """What one word stands for with one kind of tower.

    Attributes:
        name: what `--quality` takes.
        kind: of the tower.
        method: how it is read.
        saliency: as `--saliency`, where one of the classes is the background; empty for what it would be anyway.
        needs: what is fetched or installed beside the CLIP; nothing where this is empty.
        published: method and backbone of the rows of `data/published.json` that come nearest.
        apart: what those figures have that this does not; may be empty.
        measured: what was measured here; may be empty.
    """

    name: str
    kind: Kind
    method: str
    saliency: str = ""
    needs: tuple[str, ...] = ()
    published: tuple[tuple[str, str], ...] = ()
    apart: str = ""
    measured: str = ""


_ALL = (
    Quality(name="fast", kind="clip", method="sc_clip", published=(("sc-clip", "ViT-B-16"),)),
    Quality(
        name="balanced",
        kind="clip",
        method="corrclip",
        regions="eomt",
        region_vote=True,
        needs=(EOMT, PACKAGES),
        published=(("corrclip", "ViT-B-16"),),
        apart="with DINO as well, and masks of SAM 2",
    ),
    Quality(
        name="best",
        kind="clip",
        method="corrclip",
        guide="dino-b8",
        regions="eomt",
        region_vote=True,
        needs=(EOMT, DINO.format("vit_base_patch8_224.dino"), PACKAGES),
        published=(("corrclip", "ViT-B-16"), ("corrclip", "MetaCLIP ViT-B-16 + DINO + EoMT masks")),
        apart="the first with masks of SAM 2, the second with weights of MetaCLIP",
    ),
    Quality(name="fast", kind="bundled", method="vanilla", measured="71.2 on samples/emoji-voc"),
    Quality(
        name="balanced",
        kind="bundled",
        method="vanilla",
        propagate="lposs",
        saliency="found",
        measured="81.6 on samples/emoji-voc",
    ),
    # A vote in superpixels on top of LPOSS+ takes 0.7 points away there without the head.
    Quality(
        name="best",
        kind="bundled",
        method="vanilla",
        propagate="lposs+",
        saliency="found",
        measured="82.3 on samples/emoji-voc",
    ),
    Quality(name="fast", kind="other", method="maskclip", published=(("maskclip", "ViT-B-16"),)),
    Quality(
        name="balanced",
        kind="other",
        method="maskclip",
        regions="eomt",
        region_vote=True,
        needs=(EOMT, PACKAGES),
    ),
    Quality(
        name="best",
        kind="other",
        method="maskclip",
        guide="dino-b16",
        propagate="lposs",
        regions="eomt",
        region_vote=True,
        needs=(EOMT, DINO.format("vit_base_patch16_224.dino"), PACKAGES),
        published=(("lposs", "ViT-B-16 laion2b + DINO ViT-B/16"),),
        apart="without regions",
    ),
)

QUALITIES = tuple(one.name for one in _ALL if one.kind == "clip")
"""From the fastest to the best."""


def kind_of(model: str) -> Kind:
    """What kind of tower an architecture has, by its name."""
    if model == BUNDLED_MODEL:
        return "bundled"
    return "clip" if model.startswith("ViT-") and "SigLIP" not in model else "other"


def quality_for(name: str, model: str) -> Quality:
    """What a quality stands for with an architecture."""
    return next(one for one in _ALL if (one.name, one.kind) == (name, kind_of(model)))


def all_qualities() -> tuple[Quality, ...]:
    """Of all kinds of towers."""
    return _ALL
