"""What the loop asks of a device beside the tower, counted without one; and what happens when memory runs out."""

from __future__ import annotations

import logging

import pytest
import torch
from test_predict import predictor_of, random_image, run

from benchmarks.launches import MIXED, ONE_SIZE, Counting, count
from clipseg_cli.inference import predictor as loop
from clipseg_cli.inference.encode import Batches
from clipseg_cli.inference.parts import Crop
from clipseg_cli.utils.transfer import Download, upload

META = torch.device("meta")


@pytest.mark.parametrize(("sizes", "calls"), [(ONE_SIZE, 25), (MIXED, 60)], ids=["one size", "mixed"])
def test_few_calls_two_copies_and_no_wait_for_the_host(sizes, calls) -> None:
    counts = count(META, sizes)
    assert 1 < counts.calls.total() / len(sizes) <= calls
    assert 0 < counts.copies / len(sizes) <= 2
    assert not counts.waits.total()


@pytest.mark.parametrize("options", [{"presence": "evidence"}, {"prompt_denoising": 0.5}])
def test_steps_that_take_several_images_at_once_do_not_wait_either(options) -> None:
    counts = count(META, ONE_SIZE, options=options)
    assert counts.calls.total() / len(ONE_SIZE) <= 25 and not counts.waits.total()


@pytest.mark.parametrize(
    "wait", [lambda x: x.item(), lambda x: bool(x[0] > 1), lambda x: x.nonzero(), lambda x: x[x > 0]]
)
def test_a_wait_for_content_is_counted(wait) -> None:
    with Counting() as counting:
        for _ in range(2):
            wait(torch.ones(1, device="meta"))
    assert counting.counts.waits.total() == 2


def test_copies_in_both_directions_are_counted_and_those_on_the_host_are_not() -> None:
    with Counting() as counting:
        there = torch.ones(3).double().to("meta")
        there.float().cpu()
    assert counting.counts.copies == 2


@pytest.mark.parametrize("options", [{}, {"presence": "evidence"}, {"prompt_denoising": 0.3}, {"window": 0}])
def test_images_of_one_size_together_are_labelled_as_each_by_itself(tiny_clip, monkeypatch, options) -> None:
    predictor = predictor_of(tiny_clip, "a,b|c,d", **options)
    images = [random_image(*size, seed=i) for i, size in enumerate([(70, 90), (90, 70), (70, 90), (70, 90)])]
    monkeypatch.setattr(loop, "images_at_once", lambda *_: 1)
    alone = run(predictor, *images)
    seen, decide = [], loop.decide
    monkeypatch.setattr(loop, "images_at_once", lambda *_: 8)
    monkeypatch.setattr(loop, "decide", lambda maps, *a, **k: seen.append(maps) or decide(maps, *a, **k))
    together = run(predictor, *images)
    assert [maps.maps[0].shape[:-3].numel() for maps in seen] == [3, 1]
    for one, other in zip(alone, together, strict=True):
        assert (one.labels == other.labels).all()
        assert abs(one.scores - other.scores).max() < 1e-5


def test_class_maps_of_images_that_went_together_are_their_own(tiny_clip, monkeypatch) -> None:
    predictor = predictor_of(tiny_clip, "a,b|c,d", class_scores=True)
    images = [random_image(70, 90, seed=i) for i in range(3)]
    monkeypatch.setattr(loop, "images_at_once", lambda *_: 8)
    for result in run(predictor, *images):
        own = torch.tensor(result.labels).long()
        maps = torch.stack([torch.tensor(result.class_scores(c)) for c in range(3)])
        torch.testing.assert_close(
            maps.gather(0, own[None])[0], torch.tensor(result.scores), atol=1e-4, rtol=0
        )


class Scarce:
    """A reader for which memory runs out above so many windows."""

    def __init__(self, reader, most: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
        self.reader, self.most, self.error, self.seen = reader, most, error, []

    def __call__(self, images, regions=None):
        self.seen.append(len(images))
        if len(images) > self.most:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.reader(images, regions)

    def __getattr__(self, name):
        return getattr(self.reader, name)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_a_batch_that_does_not_fit_is_halved_once_and_said(tiny_clip, caplog, error) -> None:
    image = random_image(64, 200)
    expected = run(predictor_of(tiny_clip), image)[0].labels
    predictor = predictor_of(tiny_clip, batch_size=4)
    predictor.reader = scarce = Scarce(predictor.reader, 2, error)
    with caplog.at_level(logging.WARNING, "clipseg_cli"):
        first, second = run(predictor, image, image)
    assert (first.labels == expected).all() and (second.labels == expected).all()
    assert scarce.seen[:3] == [4, 2, 2] and max(scarce.seen[1:]) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "not enough memory for 4 windows at once: going on with 2, as --batch-size 2 does"
    ]


def test_memory_that_runs_out_again_ends_the_run(tiny_clip) -> None:
    predictor = predictor_of(tiny_clip, batch_size=4)
    predictor.reader = scarce = Scarce(predictor.reader, 1)
    with pytest.raises(torch.OutOfMemoryError):
        run(predictor, random_image(64, 200))
    assert scarce.seen == [4, 2]


def test_other_errors_of_the_network_are_not_tried_again() -> None:
    calls = []

    def read(batch):
        calls.append(len(batch.images))
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        list(Batches(4)([Crop(torch.zeros(3, 8, 8))] * 4, read))
    assert calls == [4]


def test_bytes_go_up_and_come_down_as_they_were() -> None:
    arrays = [random_image(5, 7).pixels, random_image(2, 3, seed=1).pixels]
    for one, tensor in zip(arrays, upload(arrays, torch.device("cpu")), strict=True):
        assert (tensor.numpy() == one).all()
    assert [one.shape for one in upload(arrays, META)] == [(5, 7, 3), (2, 3, 3)]
    score, label = torch.rand(2, 3, 4), torch.arange(24, dtype=torch.uint8).view(2, 3, 4)
    assert all(a.equal(b) for a, b in zip(Download((score, label))(), (score, label), strict=True))
