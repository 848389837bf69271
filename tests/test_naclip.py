"""NACLIP's neighbourhoods: what is kept of them. Its attention is in the golden cases."""

from __future__ import annotations

import gc
import weakref

import torch

from clipseg_cli.methods import naclip


def test_only_the_last_neighbourhood_is_kept() -> None:
    """That of an image read as a whole takes hundreds of megabytes, and images have many shapes."""
    k = torch.randn(1, 2, 1 + 3 * 4, 8, generator=torch.Generator().manual_seed(0))
    naclip.attention(k, k, k, (3, 4))
    kept = [weakref.ref(naclip.neighbourhood((3, 4)))]
    for grid in ((4, 3), (2, 6)):
        naclip.attention(k, k, k, grid)
        kept.append(weakref.ref(naclip.neighbourhood(grid)))
    gc.collect()
    assert [ref() is None for ref in kept] == [True, True, False]
