"""Threads that make batches: their errors, their order, their end, what each computes with."""

from __future__ import annotations

import signal
import threading
import time

import pytest
import torch
from noise_samples import SPEC, WHOLE, Failing, Noise, Slow, crop_threads, equal, numbers, take

from clipseg_cli.training.batches import Batches
from clipseg_cli.utils.distributed import Share


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
        ctrl_c = (threading.main_thread().ident, signal.SIGINT)
        timer = threading.Timer(0.06, signal.pthread_kill, ctrl_c)  # while the first batch is made
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
