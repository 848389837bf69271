"""Segmenters that take milliseconds, and images for them."""

from __future__ import annotations

import numpy as np
import pytest

from clipseg_cli import Segmentation, Segmenter


def tiny(clip, **options) -> Segmenter:
    return Segmenter.from_pretrained(
        clip.name, clip.weights, device="cpu", **{"templates": "single", "precision": "fp32"} | options
    )


def colours(height=40, width=56, channels=3, seed=0):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module", name="shared")
def shared_segmenter(tiny_clip) -> Segmenter:
    return tiny(tiny_clip)


def same(one: Segmentation, other: Segmentation) -> bool:
    return (
        np.array_equal(one.labels, other.labels)
        and np.array_equal(one.scores, other.scores)
        and one.classes == other.classes
    )
