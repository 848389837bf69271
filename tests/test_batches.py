"""Batches of crops: the same whoever makes them, each picture once an epoch, and threads that end."""

from __future__ import annotations

import _thread
import dataclasses
import itertools
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from clipseg_cli.errors import DatasetError, ImageError, RunError, UsageError
from clipseg_cli.ops.augment import CropSpec
from clipseg_cli.training.batches import Batch, Batches
from clipseg_cli.utils.distributed import Share

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC = CropSpec(crop=16, short_side=20, long_side=80, scale=(0.5, 2.0), max_share=0.75)
WHOLE = dataclasses.replace(SPEC, short_side=0, scale=(1.0, 1.0), flip=0.0, distort=False)
"""Takes a picture of 16x16 as it is."""


class Noise:
    """Pictures of noise with labels of noise; the label in the corner of a picture is its number."""

    def __init__(self, count: int, *, proposed: bool = True, side: int = 16) -> None:
        self.count, self.proposed, self.side = count, proposed, side
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        self.asked.append(index)
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (self.side, self.side, 3), dtype=np.uint8)
        given = rng.integers(0, 5, (self.side, self.side), dtype=np.int32)
        given[0, 0] = index
        image.setflags(write=False)  # as a decoder may hand it out
        return image, given, given + 100 if self.proposed else None

    def name(self, index: int) -> str:
        return f"picture {index}"


class Damaged(Noise):
    """Some of the pictures cannot be read."""

    def __init__(self, count: int, broken: set[int]) -> None:
        super().__init__(count)
        self.broken = broken

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        if index in self.broken:
            raise ImageError(f"{self.name(index)}: damaged")
        return super().__call__(index)


class Failing(Noise):
    """The program itself is at fault, or somebody pressed Ctrl-C."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(5)
        self.error = error

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        raise self.error


class Slow(Noise):
    """Some pictures take their time."""

    def __init__(self, count: int, seconds: float, slow: set[int]) -> None:
        super().__init__(count)
        self.seconds, self.slow = seconds, slow

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        if index in self.slow:
            time.sleep(self.seconds)
        return super().__call__(index)


def is_even(index: int) -> bool:
    """Whose labels are by human hand."""
    return index % 2 == 0


def take(
    count: int,
    source: Noise,
    spec: CropSpec = SPEC,
    *,
    batch_size: int = 4,
    rank: tuple[int, int] = (0, 1),
    seed: int = 0,
    start: int = 0,
    workers: int = 2,
    by_human: Callable[[int], bool] | None = is_even,
) -> list[Batch]:
    share = Share(*rank)
    with Batches(
        source,
        spec,
        batch_size=batch_size,
        share=share,
        seed=seed,
        start=start,
        workers=workers,
        by_human=by_human,
    ) as batches:
        return list(itertools.islice(batches, count))


def numbers(batches: list[Batch]) -> list[int]:
    """Which pictures there are, in order; for WHOLE."""
    return [int(number) for batch in batches for number in batch.given[:, 0, 0]]


def equal(some: list[Batch], others: list[Batch]) -> bool:
    return all(
        torch.equal(one, other)
        for a, b in zip(some, others, strict=True)
        for one, other in zip(a, b, strict=True)
    )


def crop_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("crop")]


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


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), KeyboardInterrupt()])
def test_what_goes_wrong_in_a_thread_arrives_as_itself(error):
    batches = Batches(Failing(error), SPEC, batch_size=2, share=Share(), seed=0, workers=2)
    with pytest.raises(type(error)) as raised:
        next(batches)
    assert raised.value is error
    assert not crop_threads()


def test_order_is_kept_when_a_picture_is_slow():
    slow = set(numbers(take(1, Noise(9), WHOLE, batch_size=1)))
    assert equal(take(3, Slow(9, 0.05, slow), workers=4), take(3, Noise(9), workers=4))


def test_two_batches_are_made_ahead_and_not_many_more():
    source = Noise(50)
    with Batches(source, WHOLE, batch_size=3, share=Share(), seed=0, workers=2) as batches:
        next(batches)
        wanted, until = 3 * (1 + 2), time.monotonic() + 5
        while len(source.asked) < wanted and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(0.02)
        assert len(source.asked) == wanted


def test_closing_drops_what_waits():
    source = Slow(50, 0.05, set(range(50)))
    with Batches(source, WHOLE, batch_size=16, share=Share(), seed=0, workers=2) as batches:
        timer = threading.Timer(0.06, _thread.interrupt_main)  # Ctrl-C, while the first batch is made
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            next(batches)
    assert len(source.asked) < 16
    assert not crop_threads()
    assert list(batches) == []
    batches.close()


def test_an_error_of_the_consumer_ends_the_threads():
    with (
        pytest.raises(ZeroDivisionError),
        Batches(Noise(5), SPEC, batch_size=2, share=Share(), seed=0, workers=2) as batches,
    ):
        next(batches)
        raise ZeroDivisionError
    assert not crop_threads()


def test_each_thread_computes_alone_and_leaves_the_others_theirs():
    class Asking(Noise):
        def __call__(self, index):
            seen.append(torch.get_num_threads())
            return super().__call__(index)

    seen: list[int] = []
    later: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Batches(Asking(5), SPEC, batch_size=4, share=Share(), seed=0, workers=2) as batches:
            next(batches)
            assert torch.get_num_threads() == 2
        assert set(seen) == {1}
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [2]
    finally:
        torch.set_num_threads(before)


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
