"""Pure functions: properties over many examples."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipseg_cli.errors import ShapeError
from clipseg_cli.ops.positions import resize_positions
from clipseg_cli.ops.pseudo import fill_unlabelled
from clipseg_cli.ops.reduce import probability_maps, reduce_maps, stretched
from clipseg_cli.ops.similarity import REMOVED, average_prompts, cosine_logits, merge_aliases, remove_classes
from clipseg_cli.ops.windows import Window, plan_windows, stitch
from clipseg_cli.refinements.key_smoothing import smooth_by_keys
from clipseg_cli.refinements.prompt_denoising import absent_classes

SIZES = [(1, 1), (3, 2000), (64, 64), (65, 63), (100, 301), (448, 336)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("window", "stride"), [(64, 32), (64, 64), (50, 7), (1000, 10), (0, 0)])
def test_windows_cover_every_pixel_and_stay_inside(size: tuple[int, int], window: int, stride: int) -> None:
    cover = torch.zeros(size)
    for w in plan_windows(size, window, stride):
        assert w.top >= 0
        assert w.left >= 0
        assert w.top + w.height <= size[0]
        assert w.left + w.width <= size[1]
        cover[w.slices] += 1
    assert cover.min() >= 1


def test_windows_need_no_more_than_the_stride_asks() -> None:
    assert len(plan_windows((336, 448), 224, 112)) == 2 * 3
    assert [w.left for w in plan_windows((100, 150), 100, 40)] == [0, 40, 50]


@pytest.mark.parametrize("size", SIZES)
def test_stitching_crops_of_a_map_gives_the_map(size: tuple[int, int]) -> None:
    whole = torch.rand(3, *size)
    windows = plan_windows(size, 48, 20)
    parts = [whole[:, w.slices[0], w.slices[1]] for w in windows]
    torch.testing.assert_close(stitch(parts, windows, size), whole)


def test_stitching_resizes_each_window_before_the_average() -> None:
    windows = [Window(0, 0, 8, 8), Window(0, 4, 8, 8)]
    parts = [torch.rand(2, 2, 2), torch.rand(2, 2, 2)]
    whole = stitch(parts, windows, (8, 12))
    left, right = (F.interpolate(p[None], size=(8, 8), mode="bilinear")[0] for p in parts)
    torch.testing.assert_close(whole[:, :, :4], left[:, :, :4])
    torch.testing.assert_close(whole[:, :, 4:8], (left[:, :, 4:] + right[:, :, :4]) / 2)


@pytest.mark.parametrize("tile_bytes", [1, 5_000, 100_000, None])
@pytest.mark.parametrize(
    ("grid", "size"), [((9, 13), (64, 100)), ((9, 13), (9, 13)), ((30, 20), (7, 11)), ((1, 1), (5, 300))]
)
def test_tiles_equal_the_plain_computation(
    grid: tuple[int, int], size: tuple[int, int], tile_bytes: int | None
) -> None:
    maps = torch.randn(23, *grid) * 4
    reduced = reduce_maps(maps, size, tile_bytes=tile_bytes)
    full = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
    assert torch.equal(reduced.winner.long(), full.argmax(dim=0))
    torch.testing.assert_close(reduced.score, full.softmax(dim=0).amax(dim=0), atol=2e-6, rtol=0)
    torch.testing.assert_close(reduced.log_total, full.logsumexp(dim=0), atol=1e-5, rtol=1e-6)


def test_probability_maps_sum_to_one() -> None:
    maps = torch.randn(7, 6, 5) * 3
    reduced = reduce_maps(maps, (40, 33))
    each = probability_maps([stretched(maps, (40, 33))], reduced.log_total, range(len(maps)))
    torch.testing.assert_close(each.sum(dim=0), torch.ones(40, 33), atol=1e-5, rtol=0)
    winners = each.gather(0, reduced.winner.long()[None])[0]
    torch.testing.assert_close(winners, reduced.score, atol=1e-5, rtol=0)


def test_probabilities_are_compared_as_they_are() -> None:
    maps = torch.rand(5, 4, 4)
    reduced = reduce_maps(maps, (16, 20), probabilities=True)
    full = F.interpolate(maps[None], size=(16, 20), mode="bilinear")[0]
    assert torch.equal(reduced.winner.long(), full.argmax(dim=0))
    torch.testing.assert_close(reduced.score, full.amax(dim=0) / full.sum(dim=0))
    (second,) = probability_maps([stretched(maps, (16, 20))], reduced.log_total, [1], probabilities=True)
    torch.testing.assert_close(second, full[1] / full.sum(dim=0))


def test_denoising_removes_exactly_the_unsure_classes() -> None:
    logits = F.normalize(torch.randn(8, 6, 7), dim=0) * 0.1
    peak = (100 * logits.flatten(1)).softmax(dim=0).amax(dim=1)
    absent = absent_classes(logits, 0.9)
    assert torch.equal(absent, peak < 0.9)
    assert absent.any()
    assert not absent.all()
    cleaned = remove_classes(logits, absent)
    assert (cleaned[absent] == REMOVED).all()
    assert torch.equal(cleaned[~absent], logits[~absent])
    assert not torch.isin(cleaned.argmax(dim=0), absent.nonzero()).any()


def test_a_class_stays_if_one_of_its_words_does_and_the_background_always() -> None:
    logits = torch.full((4, 2, 2), 0.1)
    logits[1] = 0.4  # second word of class 0; class 1 and 2 have one word each
    mapping = (0, 0, 1, 2)
    assert absent_classes(logits, 0.5, query_to_class=mapping).tolist() == [False, True, True]
    absent = absent_classes(logits, 0.5, query_to_class=mapping, keep=2)
    assert absent.tolist() == [False, True, False]
    assert (remove_classes(logits, absent, mapping)[:, 0, 0] == REMOVED).tolist() == [
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("norm", ["token", "position"])
def test_smoothing_equals_the_explicit_affinity(norm: str) -> None:
    logits, keys = torch.randn(5, 3, 4) * 0.02, torch.randn(16, 3, 4) + 0.5
    refined, unsure = smooth_by_keys(logits, keys, 0.6, norm=norm)  # type: ignore[arg-type]
    prob = (100 * logits.flatten(1)).softmax(dim=0).T  # [N, C]
    unit = F.normalize(keys.flatten(1).T, dim=1 if norm == "token" else 0)  # [N, K]
    affinity = unit @ unit.T
    mixed = affinity @ prob
    if norm == "token":
        mixed = mixed / affinity.sum(dim=1, keepdim=True)
    assert torch.equal(unsure, prob.amax(dim=1) < 0.6)
    assert 0 < unsure.sum() < len(unsure)
    expected = torch.where(unsure[:, None], mixed, prob).T.reshape(5, 3, 4)
    torch.testing.assert_close(refined, expected, atol=1e-5, rtol=1e-5)


def test_smoothing_by_token_averages() -> None:
    """The paper's flavour keeps probabilities that sum to one."""
    logits, keys = torch.randn(5, 6, 6) * 0.02, torch.rand(16, 6, 6)
    refined, _ = smooth_by_keys(logits, keys, 1.0)
    torch.testing.assert_close(refined.sum(dim=0), torch.ones(6, 6))
    assert refined.min() >= 0


def test_smoothing_leaves_a_patch_that_opposes_all_others() -> None:
    keys = torch.zeros(2, 1, 4)
    keys[0] = torch.tensor([1.0, 1.0, 1.0, -1.0])
    logits = torch.randn(3, 1, 4) * 0.01
    refined, smoothed = smooth_by_keys(logits, keys, 1.0)
    assert smoothed.tolist() == [True, True, True, False]
    assert refined.min() > -1
    assert refined.isfinite().all()


def test_keys_of_another_grid_are_an_error() -> None:
    with pytest.raises(ShapeError, match="grid"):
        smooth_by_keys(torch.rand(2, 3, 4), torch.rand(8, 4, 3), 1.0)


def test_cosines_ignore_lengths() -> None:
    features, text = torch.randn(2, 8, 3, 4), F.normalize(torch.randn(5, 8), dim=1)
    logits = cosine_logits(features, text)
    assert logits.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(cosine_logits(features * 37, text), logits)
    with pytest.raises(ShapeError, match="8 channels"):
        cosine_logits(features, text[:, :6])


def test_the_best_word_speaks_for_its_class() -> None:
    values = torch.randn(4, 2, 3)
    merged = merge_aliases(values, (0, 1, 1, 1), 2)
    assert torch.equal(merged[0], values[0])
    assert torch.equal(merged[1], values[1:].amax(dim=0))


def test_prompt_average_is_unit_and_ignores_prompt_lengths() -> None:
    prompts = torch.randn(3, 7, 16)
    average = average_prompts(prompts)
    torch.testing.assert_close(average.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(average_prompts(prompts * torch.rand(3, 7, 1).add(0.1)), average)


def test_positions_of_the_native_grid_stay() -> None:
    positions = torch.randn(1 + 16, 8)
    assert resize_positions(positions, (4, 4)) is positions
    resized = resize_positions(positions, (3, 9))
    assert resized.shape == (1 + 27, 8)
    assert torch.equal(resized[0], positions[0])
    with pytest.raises(ShapeError, match="non-square"):
        resize_positions(torch.randn(1 + 15, 8), (3, 5))


def test_only_unlabelled_pixels_are_filled_and_only_with_allowed_classes() -> None:
    labels = torch.randint(0, 5, (20, 30))
    labels[labels == 4] = -1
    labels[0] = 255
    filled = fill_unlabelled(labels, torch.randn(2, 5, 6), [7, 9])
    given = labels >= 0
    assert torch.equal(filled[given], labels[given])
    assert set(filled[~given].tolist()) == {7, 9}
