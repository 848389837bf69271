"""The recipe of the bundled model, as far as it goes without artwork: painting, pasting, and its fast forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.emoji.fast_tower import plain_products
from recipes.emoji.loader import collate
from recipes.emoji.optim import FilterMuon
from recipes.emoji.parity import check_parity
from recipes.emoji.patch_targets import PatchTargets
from recipes.emoji.scenes import Scene, paste
from recipes.emoji.textures import PAINTERS
from recipes.emoji.weights import export, load_exported, read_exported

BUNDLED = Path(__file__).parents[1] / "clipseg_cli/models/bundled/emoji"


@pytest.fixture(scope="module", name="model")
def bundled_model():
    return load_exported(BUNDLED)


def test_the_fast_forward_pass_says_what_open_clip_says(model):
    torch.manual_seed(0)
    assert check_parity(model) < 1e-4


def test_an_exported_model_is_read_back_as_it_was_trained(model, tmp_path):
    export(model, dict(model.state_dict()), tmp_path)
    before, after = read_exported(BUNDLED), read_exported(tmp_path)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_plain_products_are_attention():
    q, k, v = torch.randn(3, 2, 4, 9, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.full((9, 9), float("-inf")).triu(1)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(plain_products(q, k, v, mask, scale=0.3), expected)
    with pytest.raises(NotImplementedError, match="dropout"):
        plain_products(q, k, v, is_causal=True)


@pytest.mark.parametrize("name", PAINTERS)
def test_a_surface_is_painted_from_its_seed(name):
    first, again, other = (PAINTERS[name](np.random.default_rng(seed), 33, 70) for seed in (1, 1, 2))
    assert (first.shape, first.dtype) == ((33, 70, 3), np.uint8)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def scene_with_a_square() -> Scene:
    """A red square of 12 pixels at (4, 20), the concept 7, on black, the concept 9."""
    scene = Scene(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8), [9])
    square = np.zeros((12, 12, 4), np.uint8)
    square[..., [0, 3]] = 255
    paste(scene, square, (4, 20), 7)
    return scene


def test_what_covers_a_pixel_owns_it():
    scene = scene_with_a_square()
    red = (scene.image == (255, 0, 0)).all(axis=2)
    assert scene.labels == [9, 7] and np.array_equal(scene.instances == 1, red)
    assert red[4:16, 20:32].all() and red.sum() == 144


def test_a_patch_on_a_border_shows_several_things_by_their_shares():
    batch = collate([scene_with_a_square()], first_surface=8)
    cover = batch.cover[0, 1].reshape(4, 4)
    assert cover.sum() * 64 == pytest.approx(144)
    assert cover[0, 3] == pytest.approx(0.5)  # rows 4 to 8, and all columns
    assert batch.patch_labels.reshape(4, 4)[1].tolist() == [9, 9, 9, 7]  # half and half is the surface's


@pytest.mark.parametrize("mirrored", [False, True])
def test_targets_of_patches_turn_with_the_image(mirrored):
    batch = collate([scene_with_a_square()], first_surface=8)
    concepts = torch.tensor([9, 7])
    targets = PatchTargets(batch, concepts, torch.zeros(10, 10, dtype=torch.bool), mirrored=mirrored)
    right = torch.from_numpy(batch.patch_labels).view(1, 4, 4)
    right = (right.flip(2) if mirrored else right).flatten(1)
    scores = 20.0 * (right[..., None] == concepts)
    assert targets.accuracy(scores) == 1 and targets.accuracy(-scores) == 0
    assert targets.cross_entropy(scores) < targets.cross_entropy(-scores)


def test_filters_descend():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 8, 3, bias=False)
    optimiser = FilterMuon(conv.parameters(), lr=0.02, momentum=0.9, weight_decay=0.0)
    image, target = torch.randn(4, 3, 8, 8), torch.randn(4, 8, 6, 6)
    losses = []
    for _ in range(10):
        loss = (conv(image) - target).square().mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0]
