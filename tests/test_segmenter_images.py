"""`Segmenter` takes images in every form, one or many, and says which are none."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segmenters import colours, same, shared_segmenter, tiny  # noqa: F401

from clipseg_cli import Segmentation
from clipseg_cli.errors import ImageError, UsageError


def saved(pixels, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


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
