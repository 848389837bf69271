"""What "auto" means, for a method and for what finds the foreground."""

from __future__ import annotations

from clipseg_cli.config.constants import SALIENCY_HEADS
from clipseg_cli.config.protocols import DEFAULT_PROTOCOL, PROTOCOLS
from clipseg_cli.config.quality import QUALITIES, quality_for

BEST = "auto"
"""Instead of a method: the best that asks no second network, judged by published averages (README) and, for the
bundled model, by what it scores on drawn scenes. Instead of a kind of saliency: the one with which CLIP-DIY was
published, where the model has a head for it."""

NO_SALIENCY = "none"


def best_method(model: str, protocol: str, quality: str = "") -> str:
    """What `--method auto` means.

    Args:
        model: an architecture; towers that are not called "ViT-" after CLIP's own have no published comparison, and the
            plainest reading fits them all.
        protocol: its publication may be about a method of its own.
        quality: chooses the method, where there is one.
    """
    own = PROTOCOLS[protocol].method if protocol in PROTOCOLS else ""
    return own or quality_for(quality or QUALITIES[0], model).method


def best_saliency(model: str, pretrained: str | None, method: str, protocol: str, quality: str = "") -> str:
    """What `--saliency auto` means.

    Args:
        model: only those in the package have heads of their own, which fit the weights in the package.
        pretrained: other weights for it.
        method: CLIP-DIY is published with FOUND; all others do without.
        protocol: a publication fixes its settings, and none of them is about our models.
        quality: may bring what finds the foreground.
    """
    if quality and (own := quality_for(quality, model).saliency):
        return own
    fits = model in SALIENCY_HEADS and pretrained in (None, "bundled")
    diy = method.replace("-", "_") == "clip_diy" and protocol == DEFAULT_PROTOCOL.name
    return "found" if fits and diy else NO_SALIENCY
