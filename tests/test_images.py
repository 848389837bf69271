"""Images are decoded: every kind of file, sizes, and a sentence for each bad one."""

from __future__ import annotations

import io
import struct
import sys
import types
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from image_kinds import (
    UPRIGHT,
    save,
    source,
)
from PIL import Image, TiffImagePlugin

from clipseg_cli.data.image_files import find_images
from clipseg_cli.data.images import read_image, resize_image, target_size
from clipseg_cli.errors import ImageError

TO_STORED = {  # EXIF orientation -> how the upright picture lies in the file
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def read(path: Path, **options: float) -> np.ndarray:
    return read_image(source(path), **options).pixels


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


# --- decoding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "gif", "PNG"])
def test_lossless_kinds_come_back_exactly(suffix, tmp_path):
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(read(save(tmp_path / f"x.{suffix}", **options)), UPRIGHT)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "webp"])
def test_exif_orientation_is_applied_once(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {"quality": 98} if suffix == "jpg" else {}
    path = save(tmp_path / f"x.{suffix}", TO_STORED[orientation](UPRIGHT), exif=exif, **options)
    pixels = read(path).astype(int)
    assert pixels.shape == UPRIGHT.shape
    corners = (slice(4, None, 15), slice(5, None, 28))
    assert np.abs(pixels[corners] - UPRIGHT[corners]).max() < 12


def test_grey_1_bit_and_palette(tmp_path):
    image = Image.fromarray(UPRIGHT)
    for mode in ("L", "1", "P"):
        image.convert(mode).save(tmp_path / f"{mode}.png")
        assert np.array_equal(read(tmp_path / f"{mode}.png"), np.array(image.convert(mode).convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode, tmp_path):
    image = Image.new("RGBA", (8, 4), (255, 0, 0, 255))
    image.paste((10, 10, 10, 0), (0, 0, 4, 4))
    path = tmp_path / "x.png"
    if mode == "P":
        palette = Image.new("P", (8, 4), 1)
        palette.putpalette([0, 0, 0, 255, 0, 0])
        palette.paste(0, (0, 0, 4, 4))
        palette.save(path, transparency=0)
    else:
        image.convert(mode).save(path)
    pixels = read(path)
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == pixels[0, 7]).all()
    assert pixels[0, 7].min() < 100


def test_half_transparent_is_half_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "x.png")
    assert np.abs(read(tmp_path / "x.png").astype(int) - 127).max() <= 1


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk_keeps_its_colours(suffix, tmp_path):
    Image.fromarray(UPRIGHT).convert("CMYK").save(tmp_path / f"x.{suffix}")
    pixels = read(tmp_path / f"x.{suffix}").astype(int)
    assert np.abs(pixels - UPRIGHT)[4::15, 5::28].max() < 12  # inverted inks would differ by 200


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_divided_by_257_and_says_so(suffix, tmp_path):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    image = read_image(source(save(tmp_path / f"x.{suffix}", levels * 257)))
    assert np.array_equal(image.pixels[..., 0], levels)
    assert any("257" in note for note in image.notes)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (np.linspace(0, 1, 64, dtype=np.float32), 0, 255),
        (np.linspace(0, 200, 64, dtype=np.float32), 0, 200),
        (np.linspace(-5, 5000, 64, dtype=np.float32), 0, 255),
        (np.linspace(-70000, 70000, 64).astype(np.int32), 0, 255),
        (np.full(64, np.nan, np.float32), 0, 0),
        (np.full(64, -3, np.float32), 0, 0),
    ],
)
def test_wide_grey_is_scaled_in_order_and_noted(values, low, high, tmp_path):
    image = read_image(source(save(tmp_path / "x.tiff", values.reshape(8, 8))))
    grey = image.pixels[..., 0].ravel().astype(int)
    assert (np.diff(grey) >= 0).all()
    assert (grey[0], grey[-1]) == (low, high)
    assert len(image.notes) == 1


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animation_gives_its_first_frame_and_says_so(suffix, tmp_path):
    frames = [Image.new("RGB", (9, 7), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"x.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, **options)
    image = read_image(source(path))
    assert (image.pixels == (255, 0, 0)).all()
    assert image.notes == ("animation: first of 3 frames",)


def test_first_page_of_a_document(tmp_path):
    pages = [Image.new("RGB", (9, 7), color) for color in ("red", "lime")]
    pages[0].save(tmp_path / "x.tiff", save_all=True, append_images=pages[1:])
    image = read_image(source(tmp_path / "x.tiff"))
    assert (image.pixels == (255, 0, 0)).all()
    assert image.notes == ("document: first of 2 pages",)


@pytest.mark.parametrize("size", [(1, 1), (30, 20000), (20000, 30)])
def test_extreme_shapes(size, tmp_path):
    assert read(save(tmp_path / "x.png", np.zeros((*size, 3), np.uint8))).shape == (*size, 3)


def test_standard_input(monkeypatch):
    buffer = io.BytesIO()
    Image.fromarray(UPRIGHT).save(buffer, "PNG")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(buffer.getvalue())))
    (stdin,), _ = find_images(["-"])
    assert np.array_equal(read_image(stdin).pixels, UPRIGHT)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"")))
    with pytest.raises(ImageError, match=r"standard input.*empty"):
        read_image(stdin)


def _truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    save(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD = {
    "empty.jpg": (lambda p: p.write_bytes(b""), "empty"),
    "text.jpg": (lambda p: p.write_text("these are words, not pixels\n" * 20), "not an image"),
    "cut.jpg": (_truncated, "damaged or cut short"),
    "cut.png": (_truncated, "damaged or cut short"),
    "cut.webp": (_truncated, "damaged or cut short"),
    "cut.tiff": (_truncated, "damaged or cut short"),
    "cut.bmp": (_truncated, "damaged or cut short"),
    "folder.jpg": (lambda p: p.mkdir(), "folder"),
    "vector.eps": (
        lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "not an image",
    ),
    "gone.jpg": (lambda p: None, "No such file"),
    "bomb.png": (lambda p: p.write_bytes(png_header(20000, 15000)), "300.0 megapixels"),
    "hollow.png": (lambda p: p.write_bytes(png_header(20, 20)), "damaged or cut short"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_one_sentence_that_names_it(name, tmp_path):
    make, words = BAD[name]
    make(tmp_path / name)
    with pytest.raises(ImageError, match=words) as caught:
        read(tmp_path / name)
    assert caught.value.message.startswith(str(tmp_path / name))
    assert "\n" not in caught.value.message


def test_no_permission(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png")

    def refuse(self, *args):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # chmod does not stop root, who may run the tests
    with pytest.raises(ImageError, match=r"x\.png: cannot be read: Permission denied"):
        read(path)


def test_the_limit_names_the_option_that_raises_it_and_the_option_works(tmp_path):
    path = save(tmp_path / "x.png", np.zeros((1500, 1000), np.uint8))
    with pytest.raises(ImageError, match=r"1000x1500.*limit of 1\b") as caught:
        read(path, max_megapixels=1)
    assert "--max-megapixels 2" in caught.value.hint
    assert read(path, max_megapixels=2).shape == (1500, 1000, 3)


def test_only_the_tools_own_limit_counts(tmp_path):
    path = tmp_path / "x.png"
    Image.new("1", (20000, 10000)).save(path)  # 200 megapixels: Pillow alone would raise
    with pytest.raises(ImageError, match=r"200\.0 megapixels.*limit of 100\b"):
        read(path)
    path.write_bytes(png_header(20000, 10000))
    with pytest.raises(ImageError, match="damaged"):  # past the limit, to the pixels that are not there
        read(path, max_megapixels=201)


@pytest.mark.parametrize("tag", [33550, 33922, 34735])
def test_a_geotiff_is_left_alone_and_a_note_says_what_labels_lack(tmp_path, tag):
    image, tags = Image.new("RGB", (6, 4), "red"), TiffImagePlugin.ImageFileDirectory_v2()
    tags[tag] = (1, 1, 0, 1) if tag == 34735 else (0.5, 0.5, 0.0)
    tags.tagtype[tag] = 3 if tag == 34735 else 12
    image.save(tmp_path / "x.tif", tiffinfo=tags)
    before = (tmp_path / "x.tif").read_bytes()
    (note,) = read_image(source(tmp_path / "x.tif")).notes
    assert "do not carry its place on Earth" in note
    assert (tmp_path / "x.tif").read_bytes() == before
    image.save(tmp_path / "plain.tif")
    assert read_image(source(tmp_path / "plain.tif")).notes == ()


def test_small_tiff_with_an_enormous_tile(tmp_path):
    entries = [
        (256, 4, 1, 64),
        (257, 4, 1, 64),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
    ]
    entries += [(322, 4, 1, 65520), (323, 4, 1, 65520), (324, 4, 1, 8), (325, 4, 1, 64)]
    ifd = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries) + b"\0" * 4
    (tmp_path / "x.tiff").write_bytes(b"II*\0" + struct.pack("<I", 8) + ifd + b"\0" * 64)
    with pytest.raises(ImageError, match="megapixels"):
        read(tmp_path / "x.tiff")


def test_broken_exif_neither_warns_nor_matters(tmp_path):
    broken = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01"
    path = save(tmp_path / "x.jpg", exif=broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(path).shape == UPRIGHT.shape


def test_threads_agree(tmp_path):
    paths = [save(tmp_path / f"{i}.png", np.full((64, 64, 3), i, np.uint8)) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for i, pixels in enumerate(pool.map(read, paths)):
            assert (pixels == i).all()


# --- sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(375, 500), (1, 1), (30, 20000), (3000, 4000), (333, 500)])
@pytest.mark.parametrize("multiple", [1, 14, 16])
def test_target_size(height, width, multiple):
    rows, columns = target_size(height, width, short_side=512, long_side=2048, multiple=multiple)
    assert rows % multiple == columns % multiple == 0
    assert min(rows, columns) >= multiple
    scale = min(512 / min(height, width), 2048 / max(height, width))
    if multiple == 1:
        assert (rows, columns) == (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
    for got, side in ((rows, height), (columns, width)):
        assert abs(got - side * scale) <= max(multiple / 2, multiple - side * scale) + 1e-6


def test_no_short_side_keeps_the_size():
    assert target_size(375, 500, short_side=None, long_side=100) == (375, 500)
    assert target_size(375, 500, short_side=None, long_side=None, multiple=16) == (368, 496)


@pytest.mark.parametrize(
    ("before", "after"),
    [((1, 1), (7, 5)), ((30, 20000), (16, 2048)), ((20000, 30), (2048, 48)), ((9, 9), (1, 1))],
)
@pytest.mark.parametrize("antialias", [True, False])
def test_resize_keeps_a_flat_picture_flat(before, after, antialias):
    pixels = np.full((*before, 3), 77, np.uint8)
    got = resize_image(pixels, after, antialias=antialias)
    assert got.shape == (*after, 3)
    assert got.dtype == np.uint8
    assert (got == 77).all()


@pytest.mark.parametrize("after", [(16, 16), (80, 16), (16, 80)])  # the last two grow one side
def test_antialias_averages_what_linear_would_skip(after):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[1::4] = 255
    stripes[:, 1::4] = 255
    wanted = stripes.mean()
    assert abs(resize_image(stripes, after).mean() - wanted) < 8


def test_same_size_is_untouched():
    assert np.array_equal(resize_image(UPRIGHT, UPRIGHT.shape[:2]), UPRIGHT)
