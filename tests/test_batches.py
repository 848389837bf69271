"""Batches of crops: the same whoever makes them, and each picture once an epoch."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from noise_samples import SPEC, WHOLE, Damaged, Noise, crop_threads, equal, is_even, numbers, take

from clipseg_cli.errors import DatasetError, RunError, UsageError
from clipseg_cli.training.batches import Batch, Batches
from clipseg_cli.utils.distributed import Share


def test_a_batch_holds_crops_and_their_labels():
    (batch,) = take(1, Noise(5))
    assert batch.images.shape == (4, 3, 16, 16)
    assert batch.images.dtype == torch.uint8
    assert batch.given.shape == (4, 16, 16)
    assert batch.given.dtype == batch.proposed.dtype == torch.int32
    inside = batch.given != SPEC.ignore
    assert torch.equal(batch.proposed[inside], batch.given[inside] + 100)
    assert (batch.proposed[~inside] == SPEC.ignore).all()


def test_nothing_is_proposed_without_a_run():
    (batch,) = take(1, Noise(5, proposed=False), by_human=None)
    assert batch.proposed is None and batch.human is None


def test_crops_know_which_of_their_pixels_are_by_human_hand():
    batches = take(5, Noise(7), WHOLE)
    assert [int(h) for batch in batches for h in batch.human[:, 3, 3]] == [
        int(is_even(number)) for number in numbers(batches)
    ]
    (batch,) = take(1, Noise(5))
    assert ((batch.human == SPEC.ignore) == (batch.given == SPEC.ignore)).all()
    assert (batch.human == SPEC.ignore).any()


def test_what_is_laid_over_a_crop_keeps_whose_it_is():
    spec = dataclasses.replace(WHOLE, mix=1.0)
    batches = take(6, Noise(6), spec)
    mixed = [crop for batch in batches for crop in batch.human if 0 < int(crop.sum()) < crop.numel()]
    assert mixed and all(set(crop.unique().tolist()) == {0, 1} for crop in mixed)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_see_what_one_process_sees(world):
    alone = take(4, Noise(7))
    ranks = [take(4, Noise(7), rank=(rank, world)) for rank in range(world)]
    joined = [Batch(*map(torch.cat, zip(*parts, strict=True))) for parts in zip(*ranks, strict=True)]
    assert equal(joined, alone)


def test_any_number_of_threads_gives_the_same_batches():
    assert equal(take(4, Noise(7), workers=1), take(4, Noise(7), workers=4))


@pytest.mark.parametrize("start", [1, 2, 5])
def test_a_resumed_run_goes_on_exactly(start):
    assert equal(take(7 - start, Noise(7), start=start), take(7, Noise(7))[start:])


def test_every_epoch_shows_each_picture_once_in_a_new_order():
    order = numbers(take(7, Noise(7), WHOLE))
    epochs = [order[at : at + 7] for at in range(0, 28, 7)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 4
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_seed_decides_order_and_crops():
    assert numbers(take(2, Noise(9), WHOLE, seed=1)) != numbers(take(2, Noise(9), WHOLE, seed=2))
    one, other = (take(1, Noise(1), seed=seed)[0].images for seed in (1, 2))
    assert not torch.equal(one, other)


def test_one_picture_is_enough_and_never_cut_twice_alike():
    images = torch.cat([batch.images for batch in take(3, Noise(1))])
    assert len(images) == 12
    assert len(images.flatten(1).unique(dim=0)) == 12


def test_padded_crops_are_counted_as_they_are_taken():
    with Batches(Noise(3, side=12), WHOLE, batch_size=2, share=Share(), seed=0, workers=2) as batches:
        for taken in (2, 4, 6):
            next(batches)
            assert batches.padded == taken


def test_the_next_picture_stands_in_for_one_that_cannot_be_read():
    whole = numbers(take(4, Noise(4), WHOLE))
    with Batches(Damaged(4, {2}), WHOLE, batch_size=4, share=Share(), seed=0, workers=2) as batches:
        found = numbers(list(itertools.islice(batches, 4)))
        assert batches.failures == {"picture 2": "picture 2: damaged"}
    for at in range(0, 16, 4):
        epoch = whole[at : at + 4]
        instead = epoch[(epoch.index(2) + 1) % 4]
        assert found[at : at + 4] == [instead if number == 2 else number for number in epoch]


def test_a_run_with_damaged_pictures_is_the_same_on_all_ranks():
    alone = take(4, Damaged(7, {1, 5}))
    ranks = [take(4, Damaged(7, {1, 5}), rank=(rank, 2), workers=1) for rank in range(2)]
    joined = [Batch(*map(torch.cat, zip(*parts, strict=True))) for parts in zip(*ranks, strict=True)]
    assert equal(joined, alone)


def test_a_run_without_a_readable_picture_ends():
    with pytest.raises(RunError, match=r"none of 3 images can be read; picture \d: picture \d: damaged"):
        take(1, Damaged(3, {0, 1, 2}))
    assert not crop_threads()


def test_labels_of_another_size_make_a_picture_unreadable():
    class Shifted(Noise):
        def __call__(self, index):
            image, given, proposed = super().__call__(index)
            return image, given, proposed[:, 1:] if index == 1 else proposed

    with Batches(Shifted(3), WHOLE, batch_size=3, share=Share(), seed=0, workers=1) as batches:
        assert 1 not in numbers([next(batches)])
        assert batches.failures == {"picture 1": "picture 1: labels of 16x15 for an image of 16x16"}


@pytest.mark.parametrize(("batch_size", "world"), [(4, 3), (2, 4), (0, 1), (0, 2)])
def test_ranks_must_share_equally(batch_size, world):
    with pytest.raises(UsageError, match=f"batch of {batch_size} cannot be shared equally by {world}"):
        take(1, Noise(5), batch_size=batch_size, rank=(0, world))


def test_no_pictures_are_refused():
    with pytest.raises(DatasetError, match="no images"):
        take(1, Noise(0))


MIXED = dataclasses.replace(SPEC, mix=0.5, background=0)


def test_mixed_crops_depend_on_seed_and_number_alone():
    whole = take(6, Noise(5), MIXED)
    assert equal(whole, take(6, Noise(5), MIXED, workers=1))
    assert equal(whole[3:], take(3, Noise(5), MIXED, start=3))
    halves = [take(6, Noise(5), MIXED, rank=(rank, 2)) for rank in range(2)]
    assert equal(
        whole,
        [
            Batch(*(torch.cat(parts) for parts in zip(*pair, strict=True)))
            for pair in zip(*halves, strict=True)
        ],
    )


def test_about_as_many_crops_are_mixed_as_is_asked_for():
    """The others are what they are without."""
    plain, mixed = take(25, Noise(5)), take(25, Noise(5), MIXED)
    same = [
        bool(torch.equal(a, b))
        for one, other in zip(plain, mixed, strict=True)
        for a, b in zip(one.images, other.images, strict=True)
    ]
    assert 35 <= sum(same) <= 65


def test_a_picture_that_cannot_be_laid_over_is_named_and_the_crop_is_taken_without():
    source = Damaged(3, {1})
    share = Share(0, 1)
    spec = dataclasses.replace(MIXED, mix=1.0)
    with Batches(source, spec, batch_size=6, share=share, seed=0, workers=1) as batches:
        next(batches)
        assert batches.failures == {"picture 1": "picture 1: damaged"}
