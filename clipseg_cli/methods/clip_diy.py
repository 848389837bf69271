"""CLIP-DIY: patches of several sizes, each classified as an image of its own (arXiv:2309.14289).

Nothing inside CLIP is touched. Half-overlapping squares of three sizes go through the whole tower; the maps of cosines
of the three scales are stretched over the image and averaged. Foreground saliency (`--saliency`) then decides what is
background.

On images that are not square the patches cover everything, and each stands where it was cut; `--protocol clip-diy`
repeats the published code, which resizes to a square and leaves remainders out.

Reference: wysoczanska/clip-diy@f88932d, src/models/clip_diy.py.
"""

from __future__ import annotations

from clipseg_cli.types import Method, Pyramid

METHOD = Method(
    None,
    pyramid=Pyramid(),
    ranges={"parts": (0.01, 1), "weights": (0, 1000), "stride": (1, 16), "nearest": (0, 1)},
    cost=15.3,
    summary="whole-image CLIP on overlapping patches of three sizes",
    paper="arXiv:2309.14289",
    reference="wysoczanska/clip-diy@f88932d",
)
