"""The Python API: the labels of `clipseg segment`, of any kind of picture, and errors in sentences."""

from __future__ import annotations

import doctest
import gc
import io
import itertools
import logging
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segmenters import colours, tiny

import clipseg_cli
from clipseg_cli import Segmentation, Segmenter
from clipseg_cli.api import segmenter
from clipseg_cli.data.classes import load_classes
from clipseg_cli.errors import ClassListError, ClipsegError, ImageError, UsageError
from clipseg_cli.inference import load
from clipseg_cli.types import ClassList

SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(scope="module")
def shared(tiny_clip) -> Segmenter:
    return tiny(tiny_clip)


def saved(pixels, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def same(one: Segmentation, other: Segmentation) -> bool:
    return (
        np.array_equal(one.labels, other.labels)
        and np.array_equal(one.scores, other.scores)
        and one.classes == other.classes
    )


def labels_in(path: Path) -> list[list[int]]:
    with Image.open(path) as image:
        return np.asarray(image).tolist()


# The front door


def test_importing_the_package_does_not_load_torch(process_env):
    code = (
        "import sys, clipseg_cli\n"
        "assert {'Segmenter', 'Segmentation', '__version__'} <= set(dir(clipseg_cli))\n"
        "heavy = {'torch', 'numpy', 'PIL', 'open_clip'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], env=process_env, check=True)


def test_what_is_public_is_there_and_nothing_else():
    assert {name: getattr(clipseg_cli, name) for name in clipseg_cli.__all__} == {
        "Segmentation": Segmentation,
        "Segmenter": Segmenter,
        "__version__": clipseg_cli.__version__,
    }
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = clipseg_cli.Segmentor


def test_what_type_checkers_are_told_is_true():
    stub = Path(clipseg_cli.__file__).with_suffix(".pyi").read_text()
    for name, home in clipseg_cli._HOMES.items():
        assert f"from {home} import {name} as {name}" in stub
    assert f"__all__ = {clipseg_cli.__all__}".replace("'", '"') in stub


def test_the_example_of_the_docstring_runs():
    assert doctest.testmod(segmenter, raise_on_error=True).attempted > 5


# The same as the command


@pytest.mark.parametrize(
    ("classes", "options", "flags"),
    [
        ("cat,dog|puppy", {}, ()),
        ("voc21", {"protocol": "sclip", "short_side": 80}, ("--protocol", "sclip", "--short-side", 80)),
        ("a,b,c", {"key_smoothing": 0.9, "window": 0}, ("--key-smoothing", 0.9, "--window", 0)),
        ("a,b", {"prompt_denoising": 0.5, "stride": 16}, ("--prompt-denoising", 0.5, "--stride", 16)),
    ],
)
def test_labels_are_those_of_the_command(cli, tiny_clip, make_image, tmp_path, classes, options, flags):
    photo = make_image(tmp_path / "x.jpg", 70, 100)
    fixed = (*tiny_clip.options, "--templates", "single", "--out", tmp_path / "out")
    assert cli("segment", photo, "-c", classes, *fixed, *flags).code == 0
    result = tiny(tiny_clip, **options).segment(photo, classes)
    assert result.labels.tolist() == labels_in(tmp_path / "out" / "x.png")


def test_the_bundled_model_labels_a_sample_as_the_command_does(cli, tmp_path):
    sample = SAMPLES / "cars.png"
    flags = ("-c", "red car,blue car", "--background", "none", "--model", "emoji", "--device", "cpu")
    assert cli("segment", sample, *flags, "--out", tmp_path).code == 0
    result = Segmenter.from_pretrained("emoji", device="cpu").segment(
        sample, "red car,blue car", background=None
    )
    assert result.classes.background is None
    assert result.labels.tolist() == labels_in(tmp_path / "cars.png")


@pytest.mark.parametrize("threads", [1, 2])
def test_many_pictures_are_those_of_the_command(cli, tiny_clip, make_image, tmp_path, threads):
    """Also where a CPU takes several pictures beside each other."""
    files = [make_image(tmp_path / "in" / f"{i}.png", 40 + 8 * i, 64, seed=i) for i in range(5)]
    fixed = (*tiny_clip.options, "--templates", "single", "--out", tmp_path / "out")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert cli("segment", tmp_path / "in", "-c", "cat,dog", *fixed).code == 0
        results = list(tiny(tiny_clip).segment_many(files, "cat,dog"))
    finally:
        torch.set_num_threads(before)
    assert [r.labels.tolist() for r in results] == [
        labels_in(tmp_path / "out" / f"{i}.png") for i in range(5)
    ]


def test_one_picture_of_many_is_what_it_is_alone(shared):
    images = [colours(40, 56, seed=i) for i in range(7)]
    for result, image in zip(shared.segment_many(iter(images), "cat,dog"), images, strict=True):
        alone = shared.segment(image, "cat,dog")
        assert np.array_equal(result.image.pixels, image)
        assert np.mean(result.labels != alone.labels) < 1e-2
        np.testing.assert_allclose(result.scores, alone.scores, atol=1e-4)


# Pictures


def test_a_picture_is_the_same_in_every_form(shared, tmp_path):
    pixels = colours()
    data = saved(pixels)
    (tmp_path / "x.png").write_bytes(data)
    wanted = shared.segment(tmp_path / "x.png", "cat,dog")
    forms = [
        str(tmp_path / "x.png"),
        data,
        bytearray(data),
        memoryview(data),
        Image.fromarray(pixels),
        pixels,
    ]
    forms += [Image.open(io.BytesIO(data)), np.asfortranarray(pixels)]
    for form in forms:
        assert same(shared.segment(form, "cat,dog"), wanted), type(form)
    assert np.array_equal(pixels, colours())


@pytest.mark.parametrize(
    "array", [colours(channels=0), colours(channels=4), colours(channels=0).astype(np.uint16) * 200]
)
def test_grey_alpha_and_16_bits_are_converted_as_in_files(shared, array):
    wanted = shared.segment(saved(array), "cat,dog")
    result = shared.segment(array, "cat,dog")
    assert same(result, wanted)
    assert result.image.notes == wanted.image.notes
    assert same(shared.segment(array.astype(array.dtype.newbyteorder(">")), "cat,dog"), wanted)


def test_a_pillow_image_is_turned_upright_as_its_file_is(shared):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(colours(40, 56), "JPEG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        result = shared.segment(image, "cat,dog")
    assert result.labels.shape == (56, 40)
    assert same(result, shared.segment(data, "cat,dog"))


def test_a_generator_may_use_its_buffer_again_and_close_its_files(shared, tmp_path):
    def frames():
        buffer = np.empty((40, 56, 3), np.uint8)
        for seed in range(6):
            buffer[:] = colours(seed=seed)
            yield buffer
            with Image.open(io.BytesIO(saved(colours(seed=seed)))) as image:
                yield image

    results = list(shared.segment_many(frames(), "cat,dog"))
    assert len(results) == 12
    for i, result in enumerate(results):
        assert np.array_equal(result.image.pixels, colours(seed=i // 2)), i


def test_an_endless_source_is_read_only_a_little_ahead(tiny_clip):
    pulled = []

    def frames():
        for i in itertools.count():
            pulled.append(i)
            yield colours(64, 64, seed=i)

    results = tiny(tiny_clip, batch_size=2).segment_many(frames(), "cat,dog")
    assert not pulled
    for i in range(3):
        assert np.array_equal(next(results).image.pixels, colours(64, 64, seed=i))
    results.close()
    assert len(pulled) < 30


@pytest.mark.parametrize(
    ("image", "error", "said"),
    [
        ("missing.png", ImageError, "missing.png: cannot be read: No such file"),
        ("", ImageError, "'' is not the name of a file"),
        ("x\0y", ImageError, "is not the name of a file"),
        (b"", ImageError, "image: the file is empty"),
        (b"GIF, but not really", ImageError, "image: not an image that can be read"),
        (saved(colours())[:400], ImageError, "image: damaged or cut short"),
        (Image.open(io.BytesIO(saved(colours())[:400])), ImageError, "image: damaged or cut short"),
        (colours().astype(np.float32), TypeError, "image: an array of float32; pixels are uint8"),
        (colours(channels=2), ImageError, r"image: an array of uint8 \[40, 56, 2\] is not an image"),
        (colours().astype(np.uint16), ImageError, "an array of uint16"),
        (np.zeros((0, 5, 3), np.uint8), ImageError, "is not an image"),
        (np.zeros(5, np.uint8), ImageError, "is not an image"),
        (torch.zeros(3, 8, 8), TypeError, "not Tensor"),
        (None, TypeError, "not NoneType"),
    ],
)
def test_bad_pictures(shared, image, error, said):
    with pytest.raises(error, match=said):
        shared.segment(image, "cat")


@pytest.mark.parametrize("form", [bytes, Image.fromarray])
def test_pictures_over_the_limit_are_refused(tiny_clip, form):
    image = saved(colours(50, 50)) if form is bytes else form(colours(50, 50))
    with pytest.raises(ImageError, match=r"image: 50x50, .* over the limit"):
        tiny(tiny_clip, max_megapixels=0.002).segment(image, "cat")


@pytest.mark.parametrize("kind", [list, iter])
def test_a_bad_picture_ends_the_iteration_at_its_place(shared, kind):
    results = shared.segment_many(kind([colours(), colours(seed=1), b"x", colours()]), "cat")
    assert [next(results).labels.shape for _ in range(2)] == [(40, 56), (40, 56)]
    with pytest.raises(ImageError, match=r"^image 2: not an image"):
        next(results)


@pytest.mark.parametrize("images", ["x.png", Path("x.png"), b"x", Image.fromarray(colours()), colours(), 5])
def test_one_picture_is_not_many(shared, images):
    with pytest.raises(TypeError, match="many images are expected here"):
        shared.segment_many(images, "cat")


# Words


def test_classes_are_the_same_in_every_form(shared, tmp_path):
    (tmp_path / "words.txt").write_text("cat\ndog, puppy\n")
    spec = "cat,dog|puppy"
    wanted = shared.segment(colours(), spec)
    assert wanted.classes.names == ("background", "cat", "dog")
    for form in (
        ["cat", "dog|puppy"],
        ("cat", "dog|puppy"),
        tmp_path / "words.txt",
        str(tmp_path / "words.txt"),
        wanted.classes,
    ):
        assert same(shared.segment(colours(), form), wanted)
    assert shared.segment(colours(), spec, background="sky").classes == load_classes(spec, background="sky")
    assert shared.segment(colours(), spec, background=None).classes == load_classes(spec)
    assert len(shared.segment(colours(), "voc21").classes) == 21


def test_the_words_of_a_list_are_embedded_once(tiny_clip, monkeypatch):
    calls = []
    embed = load.embed_words
    monkeypatch.setattr(load, "embed_words", lambda *args, **kw: calls.append(args[2]) or embed(*args, **kw))
    one = tiny(tiny_clip)
    for words in ("cat,dog", ["cat", "dog"], "cat , dog", "bird"):
        one.segment(colours(), words, background=None)
    list(one.segment_many([colours()] * 2, "cat,dog", background=None))
    assert len(calls) == 2
    for i in range(segmenter.KEPT_LISTS):  # old lists give way
        one.segment(colours(8, 8), f"word {i}", background=None)
    assert len(one._kept) == segmenter.KEPT_LISTS
    one.segment(colours(), "cat,dog", background=None)
    assert len(calls) == 3 + segmenter.KEPT_LISTS


@pytest.mark.parametrize(
    ("classes", "error", "said"),
    [
        (None, UsageError, "no classes were named"),
        ("", ClassListError, "the class list is empty"),
        ([], ClassListError, "the class list is empty"),
        ("cat,cat", ClassListError, "'cat' appears twice"),
        (["cat", "a,b"], ClassListError, "item 2: 'a,b' has a comma"),
        (["cat", 5], TypeError, "item 2: a name is text, not int"),
        ({"cat", "dog"}, TypeError, "not set"),
        (["voc21"], ClassListError, "'voc21' is also a file or a benchmark"),
        (["/etc/words.txt"], ClassListError, "is also a file"),
        (Path("cat"), ClassListError, "no such file: cat"),
        (ClassList((), ()), ClassListError, "a ClassList needs words for every class"),
        (ClassList(("a", "b"), (("a",), ())), ClassListError, "a ClassList needs words"),
        (ClassList(("a",), (("a",),), background=1), ClassListError, "a background among its classes"),
    ],
)
def test_bad_classes(shared, classes, error, said):
    with pytest.raises(error, match=said):
        shared.segment(colours(), classes)
    with pytest.raises(error, match=said):  # at once, not when the first result is asked for
        shared.segment_many([colours()], classes)


def test_words_that_the_bundled_model_was_never_taught_are_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("clipseg_cli"), "handlers", [])  # a command run here left its own
    emoji = Segmenter.from_pretrained("emoji", device="cpu", templates="single")
    with caplog.at_level(logging.WARNING, logger="clipseg_cli"):
        for _ in range(2):
            emoji.segment(colours(), "cat,flibbertigibbet", background=None)
    assert [r.getMessage() for r in caplog.records] == [
        "the model 'emoji' was never taught 'flibbertigibbet': what it labels so means little"
    ]


# The model


def test_attributes(shared, tiny_clip):
    assert (shared.name, shared.device, shared.classes) == (tiny_clip.name, torch.device("cpu"), None)
    assert shared.fingerprint == tiny(tiny_clip).fingerprint
    assert repr(shared) == f"<Segmenter tiny-vit / {tiny_clip.weights} on cpu>"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"model": "ViT-B-61"}, UsageError, "'ViT-B-61'"),
        ({"method": "maskclp"}, UsageError, "unknown method"),
        ({"protocol": "sclp"}, UsageError, "unknown protocol"),
        ({"templates": "imagnet"}, UsageError, "unknown templates"),
        ({"device": "cpuu"}, UsageError, "unknown device"),
        ({"precision": "fp23"}, UsageError, "unknown precision"),
        ({"pretrained": "nowhere.safetensors"}, ClipsegError, "no such weight file"),
        ({"prompt_denoising": 1.5}, UsageError, "prompt_denoising: 1.5 is not between 0 and 1"),
        ({"key_smoothing": float("nan")}, UsageError, "key_smoothing: nan is not between"),
        ({"batch_size": 0}, UsageError, "batch_size: 0 is not between 1 and 4096"),
        ({"window": -8}, UsageError, "window: -8 is not between"),
        ({"batch_size": 1.0}, TypeError, "batch_size is int, not float"),
        ({"batch_size": None}, TypeError, "batch_size is int, not NoneType"),
        ({"stride": True}, TypeError, "stride is int, not bool"),
        ({"key_smoothing": "1"}, TypeError, "key_smoothing is float, not str"),
        ({"model": None}, TypeError, "model is text, not NoneType"),
        ({"precision": None}, TypeError, "precision is text, not NoneType"),
    ],
)
def test_bad_options(options, error, said):
    with pytest.raises(error, match=said):
        Segmenter.from_pretrained(**{"model": "emoji", "device": "cpu"} | options)


def test_threads_share_one_model(tiny_clip, monkeypatch):
    calls = []
    embed = load.embed_words

    def slow(*args, **kwargs):
        calls.append(1)
        time.sleep(0.05)
        return embed(*args, **kwargs)

    monkeypatch.setattr(load, "embed_words", slow)
    one = tiny(tiny_clip)
    images = [colours(seed=i) for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda p: one.segment(p, "cat,dog"), images))
    assert len(calls) == 1
    for image, result in zip(images, results, strict=True):
        alone = one.segment(image, "cat,dog")
        assert np.array_equal(result.image.pixels, image)
        np.testing.assert_allclose(result.scores, alone.scores, atol=1e-5)


def test_a_bad_picture_costs_only_its_own_place_if_that_is_wanted(tiny_clip, make_image, tmp_path):
    good, bad = make_image(tmp_path / "a.png", 20, 30), tmp_path / "b.png"
    bad.write_bytes(b"no picture")
    segmenter = tiny(tiny_clip)
    first, error, last = segmenter.segment_many([good, bad, good], "cat", errors="return")
    assert isinstance(error, ImageError) and np.array_equal(first.labels, last.labels)
    with pytest.raises(UsageError, match="errors 'ignore'"):
        segmenter.segment_many([good], "cat", errors="ignore")


def test_bad_pictures_can_be_skipped_and_are_logged(tiny_clip, make_image, tmp_path, caplog):
    good, bad = make_image(tmp_path / "a.png", 20, 30), tmp_path / "b.png"
    bad.write_bytes(b"no picture")
    segmenter = tiny(tiny_clip)
    results = list(segmenter.segment_many([bad, good, 3, good], "cat", errors="skip"))
    assert len(results) == 2 and all(isinstance(r, Segmentation) for r in results)
    left_out = [record.message for record in caplog.records if record.message.startswith("left out")]
    assert len(left_out) == 2 and "b.png" in left_out[0]


def test_towers_go_when_nobody_holds_them(tiny_clip):
    """Also with the weights of a protocol that changes the tower, of which class lists share one."""
    segmenter = tiny(tiny_clip, protocol="maskclip", short_side=32)
    image = np.zeros((20, 30, 3), np.uint8)
    weights = [weakref.ref(p) for p in segmenter._model.model.visual.parameters()]
    for words in ("cat", "dog", "cow"):
        segmenter.segment(image, words)
    readers = [predictor.reader for predictor in segmenter._kept.values()]
    held = {id(p) for reader in readers for p in reader.tower.visual.parameters()}
    assert held == {id(one()) for one in weights}
    del segmenter, readers
    gc.collect()
    assert not any(one() is not None for one in weights)
