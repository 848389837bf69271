"""Half of the things of one crop laid over another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipseg_cli.ops.augment import Crop, CropSpec, mix

MIXED = CropSpec(crop=4, short_side=0, long_side=0, scale=(1.0, 1.0), max_share=1.0, mix=1.0, background=0)


def coloured(columns: list[int], *, given: int = -1) -> Crop:
    """Four columns, each of one label; a pixel is as bright as ten times its label."""
    labels = torch.tensor(columns, dtype=torch.int32).expand(4, 4)
    image = (10 * labels).clamp(0, 250).to(torch.uint8).expand(3, 4, 4)
    return Crop(image.contiguous(), torch.stack([torch.full_like(labels, given), labels]), False)


@pytest.mark.parametrize("seed", range(8))
def test_half_of_the_other_crop_s_things_are_laid_over_with_their_labels(seed):
    found = mix(coloured([0, 1, 1, 1]), coloured([0, 2, 3, 4]), np.random.default_rng(seed), MIXED)
    row = found.labels[-1][0].tolist()
    assert row[0] == 0 and len(set(row) & {2, 3, 4}) == 2
    assert all(label in (1, there) for label, there in zip(row[1:], (2, 3, 4), strict=True))
    assert torch.equal(found.image[0], (10 * found.labels[-1]).to(torch.uint8))
    assert (found.labels[0] == -1).all()


@pytest.mark.parametrize("columns", [[0, 0, 0, 0], [255, 255, 0, 255], [-1, -1, -1, -1]])
def test_where_nothing_is_a_thing_nothing_is_laid_over(columns):
    crop = coloured([0, 1, 1, 1])
    found = mix(crop, coloured(columns), np.random.default_rng(0), MIXED)
    assert torch.equal(found.image, crop.image) and torch.equal(found.labels, crop.labels)


def test_of_one_thing_the_half_is_all_of_it():
    found = mix(coloured([1, 1, 1, 1]), coloured([0, 0, 5, 5]), np.random.default_rng(0), MIXED)
    assert found.labels[-1][0].tolist() == [1, 1, 5, 5]
