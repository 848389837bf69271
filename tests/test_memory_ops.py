"""What a memory of labelled images is made of: levels, surroundings, regions, classifiers, search."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from clipseg_cli.memory.labelled import TRUST_TOLD, TRUST_UNTOLD, Labelled, learn
from clipseg_cli.ops import sparse
from clipseg_cli.ops.coverage import most_covering
from clipseg_cli.ops.discriminant import discriminant, moments, total
from clipseg_cli.ops.levels import Depths, Packed, patch_shares, spread
from clipseg_cli.ops.neighbours import nearest, support
from clipseg_cli.ops.reduce import Tile, stretched
from clipseg_cli.ops.region_means import paint, region_means
from clipseg_cli.ops.rns import class_rows, retrieve
from clipseg_cli.ops.small_net import average_logits, train_net
from clipseg_cli.ops.surroundings import mean_around, with_surroundings
from clipseg_cli.refinements.memory import joined
from clipseg_cli.refinements.saliency import SaliencyPrior


class Given(NamedTuple):
    """Levels that are there already."""

    features: torch.Tensor

    def projected(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bfhw,fd->bdhw", self.features, weight)


def test_words_keep_the_classes_that_only_they_know() -> None:
    """Where the words are surer of it than on labelled images, a class without labels wins; elsewhere it does not."""
    known = torch.tensor([True, True, False])
    words = torch.tensor([[-1.0, -9.0], [-1.0, -9.0], [-3.0, -0.1]])  # [C, 2 places]
    recalled = torch.tensor([[5.0, 5.0], [0.0, 0.0], [0.0, 0.0]])
    caution = torch.tensor([0.0, 0.0, 2.0])
    assert joined(words, recalled, known, 0.3, caution).argmax(dim=0).tolist() == [0, 2]
    assert joined(words, recalled, known, 0.3, 100 * caution).argmax(dim=0).tolist() == [0, 0]


def test_saliency_beside_a_memory_is_a_probability() -> None:
    """A memory hands on log probabilities, none above 0: a product would favour what saliency excludes."""
    size, scale, background = (4, 6), 100.0, torch.tensor([True, False, False])
    known = torch.randn(3, *size, generator=torch.Generator().manual_seed(0)).log_softmax(dim=0)

    def weighed(saliency: torch.Tensor) -> torch.Tensor:
        prior = SaliencyPrior(stretched(saliency[None], size), background, scale)
        return (scale * prior(known / scale, Tile(0, size[0], 0, size[1]), range(3))).softmax(dim=0)

    undecided = weighed(torch.full(size, 0.5))
    torch.testing.assert_close(undecided, known.exp())
    ramp = torch.linspace(0.1, 0.9, size[1]).expand(size)
    expected = known.exp() * torch.where(background[:, None, None], 1 - ramp, ramp)
    torch.testing.assert_close(weighed(ramp), expected / expected.sum(dim=0, keepdim=True))
    assert (weighed(torch.ones(size))[0] < undecided[0]).all()


def as_maps(rows: torch.Tensor, number: int) -> torch.Tensor:
    """A quarter of 400 rows as an image of 10 x 10 patches with one view: [1, c, 10, 10]."""
    return rows[100 * number : 100 * (number + 1)].mT.unflatten(1, (10, 10))[None]


def test_meaningless_words_learn_caution() -> None:
    """A class without labels, which the words see everywhere on labelled images, takes about one in a hundred there."""
    torch.manual_seed(0)
    shares = F.one_hot(torch.arange(400) % 2, 3).float()
    levels = 3 * shares[:, :2] @ torch.randn(2, 8) + torch.randn(400, 8)
    words = torch.randn(400, 3).log_softmax(dim=1) + torch.tensor([0.0, 0.0, 4.0])
    images = [
        Labelled(Packed.of(as_maps(levels, i)), as_maps(shares, i), as_maps(words, i)) for i in range(4)
    ]
    taught = learn(images)
    assert taught.known.tolist() == [True, True, False]
    read = [taught.judge(taught.read(Given(as_maps(levels, i)))[0]) for i in range(4)]
    words, shares = (
        torch.cat([as_maps(one, i)[0].flatten(1).mT for i in range(4)]) for one in (words, shares)
    )
    logits = torch.cat([one.flatten(1) for one in read], dim=1)
    found = joined(words.mT, logits, taught.known, taught.trust, taught.caution).argmax(dim=0)
    assert (found == 2).float().mean() < 0.02
    assert (found == shares.argmax(dim=1)).float().mean() > 0.9


@pytest.mark.parametrize("meaning", [True, False])
def test_one_image_shows_whether_words_mean_something(meaning: bool) -> None:
    """A rare class counts as much as a frequent one: words that see the frequent one everywhere say nothing."""
    torch.manual_seed(0)
    shares = F.one_hot(
        (torch.arange(100) % 10 == 0).long(), 3
    ).float()  # 90 patches, 10, and none of the third
    words = (10 * shares if meaning else torch.tensor([10.0, 0.0, 0.0]).expand(100, 3)).log_softmax(dim=1)
    image = Labelled(Packed.of(as_maps(torch.randn(100, 8), 0)), as_maps(shares, 0), as_maps(words, 0))
    assert learn([image]).trust == (TRUST_TOLD if meaning else TRUST_UNTOLD)


def test_where_a_patch_lies_is_learnt_only_where_it_is_asked() -> None:
    """What is above is one class and what is below another; the features say nothing."""
    torch.manual_seed(0)
    above = (torch.arange(12) < 6).float()[None, :, None].expand(1, 12, 12)
    shares = torch.stack([above, 1 - above], dim=1)
    words = torch.zeros(1, 2, 12, 12)
    images = [Labelled(Packed.of(torch.randn(1, 6, 12, 12)), shares, words) for _ in range(4)]
    unseen = torch.randn(16, 6, 12, 12)
    right = []
    for placed in (True, False):
        taught = learn(images, placed=placed)
        labels = torch.stack([taught.judge(one).argmax(dim=0) for one in taught.read(Given(unseen))])
        right.append((labels == shares.argmax(dim=1)).float().mean())
    assert right[0] > 0.9 > 0.7 > right[1]


def test_surroundings_of_a_mirror_image_are_mirrored() -> None:
    maps = torch.randn(5, 7, 9, generator=torch.Generator().manual_seed(0))
    found = with_surroundings(maps, near=2)
    assert found.shape == (5 + 2 * 2 + 4, 7, 9)
    assert torch.equal(found[:5], maps)
    torch.testing.assert_close(with_surroundings(maps.flip(2), near=2), found.flip(2))
    assert torch.equal(with_surroundings(maps, near=2, placed=False), found[:-4])


def test_the_mean_around_is_that_of_a_square() -> None:
    maps = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0))
    found = mean_around(maps, 3)
    torch.testing.assert_close(found[:, 2, 3], maps[:, 1:4, 2:5].mean(dim=(1, 2)))
    row = torch.stack([maps[:, 0, 2:5], maps[:, 0, 2:5], maps[:, 1, 2:5]])  # the border counts twice
    torch.testing.assert_close(found[:, 0, 3], row.mean(dim=(0, 2)))


def test_levels_in_a_byte_are_nearly_as_they_were() -> None:
    spreads = torch.tensor([1.0, 9.0, 0.0])[:, None, None]
    levels = spreads * torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    packed = Packed.of(levels)
    back = torch.stack([packed.view(0), packed.view(1)])
    assert ((back - levels).abs() <= levels.abs().amax(dim=(2, 3), keepdim=True) / 253).all()


def test_moments_add_up_and_separate() -> None:
    torch.manual_seed(0)
    shares = F.one_hot(torch.arange(300) % 3, 4).float()
    x = 4 * shares[:, :3] @ torch.randn(3, 6) + torch.randn(300, 6)
    whole, parts = moments(x, shares), total(moments(x[i::3], shares[i::3]) for i in range(3))
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-2)
    linear = discriminant(whole, 0.1)
    found = x @ linear.weight.mT + linear.bias
    assert (found.argmax(dim=1) == shares.argmax(dim=1)).float().mean() > 0.95
    assert found[:, 3].max() < -1e3


def test_the_same_network_twice_and_no_random_state_is_touched() -> None:
    torch.manual_seed(3)
    x, shares = torch.randn(200, 5), F.one_hot(torch.randint(3, (200,)), 3).float()
    state = torch.random.get_rng_state()
    one, other = (train_net(x, shares, hidden=8, steps=20) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(state, torch.random.get_rng_state())


def test_networks_agree_in_the_mean_of_their_logarithms() -> None:
    torch.manual_seed(0)
    x, shares = torch.randn(60, 5), F.one_hot(torch.randint(3, (60,)), 3).float()
    nets = [train_net(x, shares, hidden=8, steps=5, seed=seed) for seed in (0, 1)]
    each = [F.linear(F.gelu(F.linear(x, n.hidden, n.hidden_bias)), n.output, n.output_bias) for n in nets]
    expected = torch.stack([one.log_softmax(dim=1) for one in each]).mean(dim=0)
    assert torch.allclose(average_logits(nets, x.mT).mT, expected, atol=1e-5)


def test_search_in_blocks_equals_search_at_once() -> None:
    torch.manual_seed(0)
    keys, queries = F.normalize(torch.randn(1000, 16), dim=1), F.normalize(torch.randn(7, 16), dim=1)
    rows, products = nearest(queries, keys, 20, block=64)
    expected = (queries @ keys.mT).topk(20, dim=1)
    assert torch.equal(rows, expected.indices) and torch.allclose(products, expected.values)


def test_a_bank_smaller_than_k() -> None:
    keys = F.normalize(torch.randn(3, 4), dim=1)
    rows, products = nearest(keys, keys, 5, block=2)
    assert products.shape == (3, 3) and (rows[:, 3:] == -1).all() and rows[:, 0].tolist() == [0, 1, 2]
    assert torch.allclose(support(keys, rows), F.normalize(keys.sum(dim=0), dim=0).expand(3, 4), atol=1e-6)


def test_region_means_equal_interpolation_at_once() -> None:
    torch.manual_seed(0)
    features, ids = torch.randn(5, 4, 6), torch.randint(0, 4, (30, 41))
    full = F.normalize(F.interpolate(features[None], (30, 41), mode="bilinear")[0], dim=0)
    found, means = region_means(features, ids, unit=True)
    assert found.tolist() == [1, 2, 3]
    for number, mean in zip(found.tolist(), means, strict=True):
        assert torch.allclose(mean, full[:, ids == number].mean(dim=1), atol=1e-5)
    every, _ = region_means(features, ids, unit=True, none=None)
    assert torch.equal(paint(every[:, None].float(), every, ids)[0].long(), ids)


def test_entries_add_up_in_a_table_as_they_do_sorted(monkeypatch) -> None:
    torch.manual_seed(0)
    index = torch.stack([torch.randint(0, 3, (50,)), torch.randint(0, 4, (50,))])
    values, dense = torch.rand(50), torch.randn(4, 5)
    in_table = sparse.sparse_product(index, values, (3, 4), dense)
    monkeypatch.setattr(sparse, "TABLE", 11)
    is_sorted = sparse.sparse_product(index, values, (3, 4), dense)
    assert torch.allclose(in_table, is_sorted, atol=1e-5)
    assert torch.allclose(in_table, sparse.sparse_sum(index, values, (3, 4)).to_dense() @ dense, atol=1e-5)


def test_shares_of_patches_sum_to_what_is_labelled() -> None:
    labels = torch.tensor([[0, 0, 1, 1], [0, -1, 1, 1], [2, 2, 2, 2], [2, 2, -1, -1]])
    shares = patch_shares(labels, 3, (2, 2))
    assert shares.sum(dim=0).tolist() == [[0.75, 1.0], [1.0, 0.5]]
    assert shares[0, 0, 0] == 0.75 and shares[1, 0, 1] == 1.0


def test_levels_stand_on_one_grid_with_words_as_they_are() -> None:
    inner, last = torch.randn(1, 6, 4, 4), 7 * torch.randn(1, 3, 2, 2)
    levels = Depths((inner, last)).stacked()
    assert levels.shape == (1, 9, 2, 2)
    assert torch.allclose(F.normalize(levels[:, 6:], dim=1), F.normalize(last, dim=1), atol=1e-6)
    assert levels[:, :6].mean(dim=1).abs().max() < 1e-5


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_directions_of_levels_need_not_all_features(dtype: torch.dtype, error: float) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = ((24, 9, 14), (40, 5, 7), (32, 3, 4), (16, 5, 7))
    levels = Depths(tuple((3 + 2 * torch.randn(2, *size, generator=generator)).to(dtype) for size in sizes))
    weight = torch.randn(112, 6, generator=generator)
    expected = torch.einsum("bfhw,fd->bdhw", levels.stacked(), weight)
    found = levels.projected(weight)
    assert found.dtype == torch.float32 and found.shape == (2, 6, 5, 7)
    assert (found - expected).norm() < error * expected.norm()
    torch.testing.assert_close(levels.of(slice(1, 2)).projected(weight), found[1:], atol=1e-3, rtol=1e-3)
    assert torch.equal(levels.above(levels.maps).stacked()[:, 96 + 16 :], levels.stacked())


@pytest.mark.parametrize("depth", [1, 2, 3, 6, 12, 24])
def test_depths_are_spread(depth: int) -> None:
    found = spread(depth)
    assert len(set(found)) == len(found) == min(5, depth - 1)
    assert all(0 < i < depth for i in found)


def test_each_suggestion_shows_something_new() -> None:
    """Three kinds of images, one of each is chosen before any second one; what is known counts as chosen."""
    torch.manual_seed(0)
    images = torch.eye(3).repeat_interleave(4, dim=0) + 0.01 * torch.randn(12, 3)
    assert sorted(i // 4 for i in most_covering(images, 3)) == [0, 1, 2]
    assert sorted(i // 4 for i in most_covering(images, 2, known=[5])) == [0, 2]
    assert sorted(most_covering(images, 99)) == list(range(12))


def test_rows_of_a_memory_are_found_by_their_own_patches() -> None:
    patches = torch.eye(4)
    rows, there = class_rows(patches, torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 0.5, 0], [0, 0, 0]]))
    assert there.tolist() == [True, True, False]
    assert torch.allclose(rows[0], F.normalize(patches[0] + patches[1], dim=0))
    assert retrieve(patches[2:3], rows[there], k=1).tolist() == [1]
