"""Segmenters that take milliseconds, and images for them."""

from __future__ import annotations

import numpy as np

from clipseg_cli import Segmenter


def tiny(clip, **options) -> Segmenter:
    return Segmenter.from_pretrained(
        clip.name, clip.weights, device="cpu", **{"templates": "single", "precision": "fp32"} | options
    )


def colours(height=40, width=56, channels=3, seed=0):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
