"""CorrCLIP's attention inside regions: properties, and the command."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from region_images import drawing
from test_dense_clip import Colors, tower

from clipseg_cli.methods import METHODS
from clipseg_cli.models.clip.dense_transformer import dense_reader
from clipseg_cli.ops.region_attention import merge_alike, scoped_attention
from clipseg_cli.types import Reading


def test_regions_that_look_alike_are_one_and_number_zero_stays():
    unit = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1]]), dim=1
    )
    assert merge_alike(unit, torch.tensor([5, 3, 4, 9, 0])).tolist() == [3, 3, 3, 9, 0]
    assert merge_alike(unit, torch.tensor([5, 3, 4, 9, 0]), 0.0).tolist() == [5, 3, 4, 9, 0]
    assert merge_alike(unit, torch.tensor([5, 5, 5, 9, 9])).tolist() == [5, 5, 5, 9, 9]


def test_attention_stays_in_its_region_and_free_positions_look_for_what_is_alike():
    torch.manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(30, 8), dim=1)
    regions = torch.arange(30) % 4
    attention = scoped_attention(unit, regions)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(30))
    both = (regions[:, None] > 0) & (regions > 0)
    assert not attention[both & (regions[:, None] != regions)].any()
    assert (attention[both & (regions[:, None] == regions)] > 0).all()
    similar = unit @ unit.mT
    assert torch.equal(attention[~both] > 0, similar[~both] > similar.mean())
    equal = torch.ones(6, 1)
    assert torch.equal(scoped_attention(equal, torch.zeros(6, dtype=torch.int32)), torch.eye(6))


@torch.inference_mode()
def test_without_a_guide_the_tower_s_own_features_say_what_is_alike():
    torch.manual_seed(0)
    image, method = torch.randn(1, 3, 32, 48), METHODS.get("corrclip")
    left = (torch.arange(48) < 20).expand(1, 32, 48).int() + 1
    found = dense_reader(tower(), method)(image, left).features
    assert found.shape == (1, 16, 4, 6)
    fine = dense_reader(tower(), method, Reading(guide=Colors()))(image, left).features
    assert fine.shape == (1, 16, 8, 12)
    other = dense_reader(tower(), method)(image, left.flip(2)).features
    assert not torch.allclose(found, other)


@torch.inference_mode()
def test_corrclip_does_not_depend_on_the_numbers_of_regions():
    torch.manual_seed(0)
    image, reader = torch.randn(2, 3, 32, 48), dense_reader(tower(), METHODS.get("corrclip"))
    regions = torch.randint(0, 4, (2, 4, 6)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    renamed = torch.tensor([0, 900, 17, 3])[regions]
    torch.testing.assert_close(reader(image, regions).features, reader(image, renamed).features)


def test_corrclip_in_the_command_windows_and_vote(cli, tiny_clip, tmp_path):
    Image.fromarray(drawing(90, 150)).save(tmp_path / "x.png")
    args = ("segment", tmp_path / "x.png", "-c", "cat,dog", *tiny_clip.options, "--templates", "single")
    args = (*args, "--method", "corrclip", "--regions", "superpixels")
    done = cli(*args, "--out", tmp_path / "a")
    assert done.code == 0, done.err
    settings = ("--region-vote", "--presence", "--set", "corrclip.merge=false", "--window", "32")
    done = cli(*args, *settings, "--out", tmp_path / "b")
    assert done.code == 0, done.err
    labels = [np.asarray(Image.open(tmp_path / f"{name}/x.png")) for name in "ab"]
    assert labels[0].shape == labels[1].shape == (90, 150)
