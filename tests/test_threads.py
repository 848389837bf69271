"""Work on single threads: the same bits on one thread and on several."""

from __future__ import annotations

import threading
import weakref
from pathlib import PurePosixPath

import pytest
import torch
from dataset_trees import save_image

from clipseg_cli.config import InferenceConfig, PseudolabelConfig
from clipseg_cli.data.classes import load_classes
from clipseg_cli.data.images import read_image
from clipseg_cli.data.prompts import build_prompts, load_templates
from clipseg_cli.inference.load import plan_model
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.inference.stream import Stream
from clipseg_cli.models.clip.text_classifier import compute_embeds
from clipseg_cli.types import ImageSource, Sample
from clipseg_cli.utils.threads import crop_threads, map_single_threaded, pool_size, single_thread_pool

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    """Set the number of threads of torch; it is as before afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded(tiny_clip, _own_cache):
    classes = load_classes("cat,dog|puppy,car", background="sky")
    config = PseudolabelConfig(
        model=tiny_clip.name,
        pretrained=str(tiny_clip.weights),
        templates="single",
        device="cpu",
        key_smoothing=0.9,
        batch_size=8,
    )
    return plan_model(config, find_protocol("default")).load(classes)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("threads")
    for i in range(11):
        save_image(folder / f"{i:02}.png", size=(40 + 8 * (i % 4), 64), seed=i)
    paths = sorted(folder.iterdir())
    return [Sample(ImageSource(path, PurePosixPath(path.stem))) for path in paths]


def stream_results(predictor, samples, size, finish=lambda item, result: (result.labels, result.scores)):
    stream = Stream(
        predictor,
        read=lambda sample: predictor.prepare(read_image(sample.source)),
        finish=finish,
        failed=lambda item, error: error,
        config=InferenceConfig(batch_size=8, workers=2),
    )
    return list(stream.reproducible([samples[i : i + size] for i in range(0, len(samples), size)]))


@pytest.mark.parametrize("size", [1, 4])
def test_labels_and_scores_do_not_depend_on_the_threads(loaded, samples, threads, size):
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append(stream_results(loaded[1], samples, size))
    for other in found[1:]:
        for (labels, scores), (labels_2, scores_2) in zip(found[0], other, strict=True):
            assert labels.tobytes() == labels_2.tobytes()
            assert scores.tobytes() == scores_2.tobytes()


def test_a_group_gives_the_same_alone_as_among_others(loaded, samples, threads):
    threads(2)
    together = stream_results(loaded[1], samples, 4)
    alone = stream_results(loaded[1], samples[4:8], 4)
    for (labels, scores), (labels_2, scores_2) in zip(together[4:8], alone, strict=True):
        assert labels.tobytes() == labels_2.tobytes()
        assert scores.tobytes() == scores_2.tobytes()


def test_text_embeddings_do_not_depend_on_the_threads(loaded, threads):
    backbone = loaded[0]
    words = [f"word {i} " + "long " * (i % 7) for i in range(40)]
    prompts = build_prompts(words, load_templates("maskclip")[:20])
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append(compute_embeds(backbone.model, backbone.tokenizer, prompts, device=CPU))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_as_many_lanes_as_threads_each_computing_alone(threads):
    threads(3)
    assert pool_size(CPU) == 3
    meet = threading.Barrier(3, timeout=10)

    def task(_):
        meet.wait()  # only passes if three tasks run at once
        return torch.get_num_threads()

    assert map_single_threaded(task, range(3), CPU) == [1, 1, 1]
    assert torch.get_num_threads() == 3


def test_results_come_in_order_and_an_error_comes_out(threads):
    threads(2)
    assert map_single_threaded(lambda i: i, range(20), CPU) == list(range(20))
    with pytest.raises(ZeroDivisionError):
        map_single_threaded(lambda i: 1 // i, (1, 0), CPU)
    assert torch.get_num_threads() == 2


def test_what_waits_is_dropped_when_the_block_ends_early(threads):
    threads(1)
    begun, go_on, done = threading.Event(), threading.Event(), []

    def slow():
        begun.set()
        assert go_on.wait(10)
        done.append("first")

    with pytest.raises(RuntimeError, match="early"), single_thread_pool(CPU) as pool:
        pool.submit(slow)
        pool.submit(done.append, "second")
        begun.wait(10)
        threading.Timer(0.05, go_on.set).start()
        raise RuntimeError("early")
    assert done == ["first"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_long_list_holds_no_more_label_maps_at_once_than_a_short_one(loaded, samples, threads, count):
    """How many label maps and decoded pictures are alive together is bounded by threads and workers alone."""
    threads(count)

    def most_alive(repeats: int) -> int:
        alive, most, lock = 0, 0, threading.RLock()

        def gone():
            nonlocal alive
            with lock:
                alive -= 1

        def count(image):  # a label map holds its picture, so that this counts both
            nonlocal alive, most
            with lock:
                alive += 1
                most = max(most, alive)
            weakref.finalize(image, gone)
            return image

        stream = Stream(
            loaded[1],
            read=lambda sample: loaded[1].prepare(count(read_image(sample.source))),
            finish=lambda item, result: result.labels.shape,
            failed=lambda item, error: error,
            config=InferenceConfig(batch_size=8, workers=2),
        )
        items = samples * repeats
        groups = [items[i : i + 2] for i in range(0, len(items), 2)]
        assert len(list(stream.reproducible(groups))) == len(items)
        return most

    bound = 2 * (2 * (count + 2) + 2)  # groups of two: read ahead, waiting, and being read
    assert most_alive(1) <= bound
    assert most_alive(10) <= bound


def test_overlapping_lanes_leave_the_threads_of_torch_as_they_were(threads):
    threads(2)
    first_open, second_open, first_closed = (threading.Event() for _ in range(3))

    def first() -> None:
        with single_thread_pool(CPU) as pool:
            pool.submit(torch.get_num_threads).result()
            first_open.set()
            second_open.wait(10)
        first_closed.set()

    def second() -> None:
        first_open.wait(10)
        with single_thread_pool(CPU) as pool:
            assert pool_size(CPU) == 2
            pool.submit(torch.get_num_threads).result()
            second_open.set()
            first_closed.wait(10)

    both = [threading.Thread(target=first), threading.Thread(target=second)]
    for each in both:
        each.start()
    for each in both:
        each.join(10)
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]


@pytest.mark.parametrize(
    ("device", "cores", "processes", "expected"),
    [
        ("cpu", 64, None, 2),
        ("cuda", 64, None, 8),
        ("cuda", 6, None, 6),
        ("cuda", 16, "4", 4),
        ("mps", 1, None, 2),
    ],
)
def test_a_gpu_gets_more_threads_that_cut_crops(monkeypatch, device, cores, processes, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    if processes is None:
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    else:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert crop_threads(torch.device(device)) == expected
