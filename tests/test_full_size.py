"""Scores at full size: layers that are added, changes tile by tile, refinement by pixels, fusion with saliency."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipseg_cli.ops.axes import bilinear_axis, centred_axis, nearest_axis
from clipseg_cli.ops.pamr import pamr, pamr_affinity
from clipseg_cli.ops.patches import square_patches
from clipseg_cli.ops.reduce import (
    Compose,
    Tile,
    probability_maps,
    reduce_layers,
    stretched,
    winners,
)
from clipseg_cli.refinements.pamr import PixelAdaptive
from clipseg_cli.refinements.saliency import SaliencyFusion

CPU = torch.device("cpu")


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def full(one: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(one[None], size, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("tile_bytes", [1, 3_000, None])
def test_layers_of_several_grids_are_added(tile_bytes: int | None) -> None:
    size, parts = (37, 53), [maps(6, 3, 4), maps(6, 9, 7, seed=1), maps(6, 1, 1, seed=2)]
    reduced = reduce_layers([stretched(one, size) for one in parts], tile_bytes=tile_bytes)
    expected = torch.stack([full(one, size) for one in parts]).sum(dim=0)
    assert torch.equal(reduced.winner.long(), expected.argmax(dim=0))
    torch.testing.assert_close(reduced.score, expected.softmax(dim=0).amax(dim=0), atol=1e-5, rtol=0)


def test_excluded_words_never_win_but_count() -> None:
    scores, size = maps(5, 4, 4), (20, 20)
    free = reduce_layers([stretched(scores, size)])
    top = int(free.winner.mode().values.mode().values)
    excluded = torch.arange(5) == top
    found = reduce_layers([stretched(scores, size)], excluded=excluded)
    assert (free.winner == top).any() and not (found.winner == top).any()
    prob = full(scores, size).softmax(dim=0)
    torch.testing.assert_close(found.score, prob[~excluded].amax(dim=0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 4, 4), (2, 300, 9, 700)])
def test_the_first_of_equal_maps_wins_in_tiles_as_in_one(shape: tuple[int, ...]) -> None:
    """The last shape is cut: two rows of 300 maps fill a tile."""
    levels = maps(*shape).round()
    assert np.array_equal(winners(levels).numpy(), levels.numpy().argmax(axis=1))


def test_cells_that_stand_evenly_are_stretched_as_usual() -> None:
    centres = tuple((i + 0.5) * 5 for i in range(7))
    placed, even = centred_axis(centres, 35, CPU), bilinear_axis(7, 35, CPU)
    torch.testing.assert_close(placed.weights, even.weights, atol=1e-5, rtol=0)


@pytest.mark.parametrize("centres", [[3.0], [0.5, 9.5], [2.0, 3.0, 11.0, 30.0]])
def test_a_straight_line_stays_one_between_cells_anywhere(centres: list[float]) -> None:
    matrix = centred_axis(tuple(centres), 32, CPU).weights
    place = torch.arange(32) + 0.5
    expected = place.clamp(centres[0], centres[-1])
    torch.testing.assert_close(matrix @ torch.tensor(centres), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(32))


@pytest.mark.parametrize(("cells", "size"), [(3, 10), (7, 7), (5, 2)])
def test_nearest_is_that_of_torch(cells: int, size: int) -> None:
    values = torch.arange(cells, dtype=torch.float32)
    assert torch.equal(
        nearest_axis(cells, size, CPU).weights @ values, F.interpolate(values[None, None], size)[0, 0]
    )


# Pixel-adaptive refinement


@pytest.mark.parametrize("tile_bytes", [1, 2_000, None])
@pytest.mark.parametrize(("steps", "dilations"), [(1, (1,)), (3, (1, 2)), (2, (4,))])
def test_tiles_refine_as_the_whole_picture(
    steps: int, dilations: tuple[int, ...], tile_bytes: int | None
) -> None:
    size, scores, image = (40, 57), maps(4, 6, 8), maps(3, 20, 30, seed=3)
    layers = [stretched(scores, size)]
    change = PixelAdaptive(stretched(image, size), dilations, steps)
    reduced = reduce_layers(layers, refinement=change, tile_bytes=tile_bytes)
    affinity = pamr_affinity(full(image, size), dilations)
    expected = pamr(full(scores, size), affinity, dilations, steps)
    assert (reduced.winner.long() != expected.argmax(dim=0)).float().mean() < 1e-3
    each = probability_maps(layers, reduced.log_total, [2, 0], refinement=change)
    torch.testing.assert_close(each, expected.softmax(dim=0)[[2, 0]], atol=1e-4, rtol=0)


def test_neighbours_that_look_alike_agree_and_edges_stay() -> None:
    image = torch.zeros(3, 24, 24)
    image[:, :, 12:] = 3.0
    noisy = maps(1, 24, 24) + torch.where(torch.arange(24) < 12, 2.0, -2.0)
    affinity = pamr_affinity(image, (1, 2))
    torch.testing.assert_close(affinity.sum(dim=0), torch.ones(24, 24))
    smooth = pamr(noisy, affinity, (1, 2), 10)[0]
    assert smooth[:, :12].std() < 0.5 * noisy[0, :, :12].std()
    assert smooth[:, :11].mean() > 1.5 and smooth[:, 13:].mean() < -1.5


# Patches of several sizes, and saliency


def test_square_patches_leave_the_remainder_out() -> None:
    windows, grid = square_patches((70, 100), 32)
    assert grid == (3, 5) and len(windows) == 15
    assert (windows[-1].top, windows[-1].left) == (32, 64)
    assert square_patches((20, 50), 32)[1][0] == 0


def test_saliency_decides_between_background_and_the_rest() -> None:
    size, scores = (16, 24), torch.full((3, 1, 1), 0.2)
    scores[1] = 0.25
    saliency = torch.zeros(1, *size)
    saliency[:, :, 12:] = 1.0
    fusion = SaliencyFusion(stretched(saliency, size), torch.tensor([True, False, False]))
    winner = reduce_layers([stretched(scores, size)], refinement=fusion).winner
    assert (winner[:, :12] == 0).all() and (winner[:, 12:] == 1).all()


def test_changes_follow_each_other_with_margin_enough_for_all() -> None:
    class Add:
        def __init__(self, amount: float, margin: int) -> None:
            self.amount, self.margin = amount, margin

        def __call__(self, scores: torch.Tensor, tile: Tile, words: object) -> torch.Tensor:
            return scores * 2 + self.amount

    both = Compose([Add(1, 3), Add(10, 4)])
    assert both.margin == 7
    found = both(torch.ones(1, 2, 2), Tile(0, 2, 0, 2), [0])
    assert torch.equal(found, torch.full((1, 2, 2), 16.0))
