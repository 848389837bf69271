"""The presence filter: what is there stays, what lights up by chance goes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipseg_cli.refinements._absent import absent_by
from clipseg_cli.refinements.presence import local_evidence, presence, spatial_consistency

GRID = (10, 12)


def scene(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A rectangle of one kind of patch on a ground of another: tokens [1, 16, h, w] and its mask."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.zeros(GRID, dtype=torch.bool)
    inside[3:7, 2:8] = True
    kinds = torch.randn(2, 16, generator=generator)
    tokens = kinds[inside.long()].permute(2, 0, 1) + 0.1 * torch.randn(16, *GRID, generator=generator)
    return tokens[None], inside


def test_a_map_that_follows_things_is_consistent_and_one_that_is_scattered_is_not():
    tokens, inside = scene()
    scattered = inside.flatten()[torch.randperm(inside.numel(), generator=torch.Generator().manual_seed(1))]
    prob = torch.stack([inside.float(), scattered.view(GRID).float()])[None]
    thing, noise = spatial_consistency(prob, tokens)[0]
    assert thing > 0.95
    assert noise < 0.4


def test_consistency_knows_no_length_and_no_order_of_patches():
    tokens, _ = scene()
    prob = torch.rand(1, 3, *GRID, generator=torch.Generator().manual_seed(2))
    expected = spatial_consistency(prob, tokens)
    torch.testing.assert_close(spatial_consistency(prob, 7 * tokens), expected)
    order = torch.randperm(GRID[0] * GRID[1], generator=torch.Generator().manual_seed(3))
    mixed = [x.flatten(2)[:, :, order].view_as(x) for x in (prob, tokens)]
    torch.testing.assert_close(spatial_consistency(*mixed), expected)


def test_a_picture_of_one_colour_is_consistent():
    """Nothing is left of tokens that are all the same; each patch then speaks for itself."""
    prob = torch.rand(1, 2, *GRID)
    torch.testing.assert_close(spatial_consistency(prob, torch.ones(1, 8, *GRID)), torch.ones(1, 2))


def test_local_evidence_is_the_mean_of_the_surest_patches():
    prob = torch.zeros(1, 2, 10, 10)
    prob[0, 0, 0, :2] = torch.tensor([0.8, 0.6])
    prob[0, 1] = 0.25
    torch.testing.assert_close(local_evidence(prob), torch.tensor([[0.7, 0.25]]))
    assert local_evidence(torch.full((1, 1, 1, 1), 0.5)).item() == 0.5


def cosines(winner: torch.Tensor, words: int) -> torch.Tensor:
    """[h, w] ids -> [1, Q, h, w] with 0.3 where a word wins and 0.2 elsewhere."""
    return (0.2 + 0.1 * F.one_hot(winner, words).permute(2, 0, 1).float())[None]


def test_what_is_there_is_present_and_what_nobody_votes_for_is_not():
    tokens, inside = scene()
    evidence = presence(cosines(inside.long(), 4), tokens, None, (0, 1, 2, 2))
    assert evidence.shape == (1, 3)
    assert absent_by(evidence).tolist() == [False, False, True]


def test_the_picture_as_a_whole_can_speak_for_a_class():
    tokens, inside = scene()
    whole = torch.tensor([[0.2, 0.2, 0.2, 0.3]])
    evidence = presence(cosines(inside.long(), 4), tokens, whole, (0, 1, 2, 3))
    assert absent_by(evidence).tolist() == [False, False, True, False]


def test_one_window_is_enough_and_something_always_stays():
    assert absent_by(torch.tensor([[0.1, 1.2], [0.3, 0.0]])).tolist() == [True, False]
    assert absent_by(torch.tensor([[0.1, 0.2], [0.3, 0.0]])).tolist() == [False, True]
    assert absent_by(torch.tensor([[0.1, 0.2, 0.0]]), keep=2).tolist() == [True, False, False]


@pytest.mark.parametrize("scale", [40.0, 100.0])
def test_synonyms_of_a_class_speak_together_as_its_best(scale):
    tokens, inside = scene()
    logits = cosines(inside.long(), 2)
    doubled = torch.cat([logits, logits[:, 1:] - 0.05], dim=1)
    one = presence(logits, tokens, None, (0, 1), scale=scale)
    two = presence(doubled, tokens, None, (0, 1, 1), scale=scale)
    assert (two <= one + 1e-6).all() and (two > 0.75 * one).all()
