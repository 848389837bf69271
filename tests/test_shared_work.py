"""What is costly is there once: weights of a tower for all class lists, refinement at full size for all heat maps."""

from __future__ import annotations

import gc

import numpy as np
import torch

from clipseg_cli import Segmenter
from clipseg_cli.refinements.pamr import PixelAdaptive

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def loaded(tiny_clip, **options) -> Segmenter:
    options = {"device": "cpu", "precision": "fp32", "templates": "single", **options}
    return Segmenter.from_pretrained(tiny_clip.name, tiny_clip.weights, **options)


def weights_alive() -> set[int]:
    gc.collect()
    return {one.data_ptr() for one in gc.get_objects() if type(one) is torch.nn.Parameter}


def test_class_lists_share_the_weights_of_one_tower(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSEG_CACHE", str(tmp_path))  # so that the first list needs the text tower already
    segmenter = loaded(tiny_clip, protocol="maskclip", short_side=48)
    segmenter.segment(IMAGE, "cat,dog")
    before = weights_alive()
    for words in ("tree,house", "car,road,sky"):
        segmenter.segment(IMAGE, words)
    assert weights_alive() <= before


def test_refinement_at_full_size_runs_once_for_all_heat_maps(tiny_clip, monkeypatch):
    calls = []
    run = PixelAdaptive.__call__
    monkeypatch.setattr(PixelAdaptive, "__call__", lambda *args: calls.append(0) or run(*args))
    result = loaded(tiny_clip, pamr=2).segment(IMAGE, "cat,dog,tree,house", class_scores=True)
    decided = len(calls)
    for i in range(len(result.classes)):
        result.class_scores(i)
    assert decided >= 1 and len(calls) <= 2 * decided
