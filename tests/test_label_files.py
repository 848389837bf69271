"""Label files: numbers become class ids by the published maps, and nothing else is taken for a label."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from dataset_trees import (
    SIZE,
    make_ade20k,
    make_cityscapes,
    make_coco,
    make_context,
    make_folder,
    make_voc,
    save_image,
    save_label,
)
from PIL import Image

from clipseg_cli.data.datasets import open_dataset, read_label, read_values
from clipseg_cli.errors import DatasetError


@pytest.fixture
def voc(tmp_path):
    """VOC with one sample whose label file a test may replace."""
    dataset = open_dataset(make_voc(tmp_path / "voc"), purpose="score")
    return dataset, dataset.samples[0]


def refused(dataset, sample, size=None):
    with pytest.raises(DatasetError) as caught:
        read_label(sample, dataset, size)
    return caught.value.message, caught.value.hint


# number in the file -> class id, copied by hand from the publications and not from the code
MAPS = [
    ("voc21", make_voc, {}, {0: 0, 1: 1, 20: 20, 255: -1, 21: -2, 254: -2}),
    ("voc20", make_voc, {}, {0: -1, 1: 0, 20: 19, 255: -1, 21: -2}),
    ("context60", make_context, {}, {0: 0, 1: 1, 59: 59, 255: -1, 60: -2}),
    ("context59", make_context, {}, {0: -1, 1: 0, 59: 58, 255: -1, 60: -2}),
    ("ade20k", make_ade20k, {}, {0: -1, 1: 0, 150: 149, 255: -1, 151: -2}),
    ("coco-stuff", make_coco, {"labels": "train ids"}, {0: 0, 79: 79, 80: 80, 170: 170, 255: -1, 171: -2}),
    (
        "coco-stuff",  # person, bicycle, fire hydrant, street sign (unused), stop sign, toothbrush, banner, wood
        make_coco,
        {"labels": "raw"},
        {
            0: 0,
            1: 1,
            10: 10,
            11: -2,
            12: 11,
            24: 23,
            25: -2,
            26: 24,
            89: 79,
            90: -2,
            91: 80,
            181: 170,
            182: -2,
            255: -1,
        },
    ),
    ("coco-object", make_coco, {"labels": "instance"}, {0: 0, 1: 1, 80: 80, 81: -2, 255: -1}),
    ("coco-object", make_coco, {"labels": "train ids"}, {0: 1, 79: 80, 80: 0, 170: 0, 171: -2, 255: 0}),
    ("coco-object", make_coco, {"labels": "raw"}, {0: 1, 11: -2, 12: 12, 89: 80, 91: 0, 181: 0, 255: 0}),
    ("cityscapes", make_cityscapes, {"labels": ("labelTrainIds",)}, {0: 0, 18: 18, 19: -2, 255: -1}),
    (
        "cityscapes",  # road, sidewalk, parking, building, pole, car, caravan, trailer, train, bicycle
        make_cityscapes,
        {"labels": ("labelIds",)},
        {0: -1, 7: 0, 8: 1, 9: -1, 11: 2, 17: 5, 26: 13, 29: -1, 30: -1, 31: 16, 33: 18, 34: -2, 255: -1},
    ),
]


@pytest.mark.parametrize(("benchmark", "make", "options", "expected"), MAPS)
def test_label_tables_say_what_was_published(benchmark, make, options, expected, tmp_path):
    dataset = open_dataset(make(tmp_path, **options), benchmark=benchmark, purpose="score")
    table = dataset.label_ids
    assert table.shape == (65536,) and table.dtype == np.int32
    assert {number: int(table[number]) for number in expected} == expected
    assert (table[256:] == -2).all()
    assert table.max() + 1 == len(dataset.classes)


def test_the_unused_raw_ids_of_coco_are_eleven():
    from clipseg_cli.data.datasets.coco_stuff import RAW_IDS

    assert sorted(set(range(182)) - RAW_IDS.keys()) == [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90]
    assert sorted(i for i in RAW_IDS.values() if i >= 0) == list(range(171))


def test_the_scored_labels_of_cityscapes_are_the_official_ones(tmp_path):
    dataset = open_dataset(make_cityscapes(tmp_path, labels=("labelIds",)), purpose="score")
    scored = np.flatnonzero(dataset.label_ids >= 0).tolist()
    assert scored == [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    names = dict(zip(scored, dataset.classes.names, strict=True))
    assert (names[7], names[11], names[23], names[24], names[26], names[33]) == (
        "road",
        "building",
        "sky",
        "person",
        "car",
        "bicycle",
    )


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_palette_grey_and_16_bit_files_are_indices(mode, voc):
    dataset, sample = voc
    save_label(sample.label, (0, 7, 20, 255), mode=mode)
    labels = read_label(sample, dataset, SIZE)
    assert labels.shape == SIZE and labels.dtype == np.int32
    assert labels[0, :4].tolist() == [0, 7, 20, -1]


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("palette", [True, False])
def test_files_of_few_bits_are_not_stretched(bits, palette, tmp_path):
    values = np.arange(2**bits, dtype=np.uint8)[None].repeat(3, 0)
    path = tmp_path / "x.png"
    if palette:
        image = Image.fromarray(values).convert("L")
        image.putpalette([i for i in range(256) for _ in range(3)])
        image.save(path, bits=bits)
    else:
        path.write_bytes(grey_png(values, bits))
    assert read_values(path).tolist() == values.tolist()


def grey_png(values, bits):
    """A grey PNG of few bits, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    spread = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(spread.reshape(height, -1).astype(np.uint8), axis=1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_number_that_is_no_class_is_named_and_counted(voc):
    dataset, sample = voc
    save_label(sample.label, (0, 40, 41, 42))
    message, hint = refused(dataset, sample)
    assert f"{sample.label}: 40 is no label of voc21 (48 pixels, and 2 more such numbers)" in message
    assert "0 to 20, 255 (ignored)" in message
    assert "SegmentationClass" in hint


def test_an_unused_raw_id_of_coco_is_no_class(tmp_path):
    dataset = open_dataset(make_coco(tmp_path, labels="raw"), purpose="score")
    save_label(dataset.samples[0].label, (0, 11))
    message, hint = refused(dataset, dataset.samples[0])
    assert "11 is no label of coco-stuff (96 pixels)" in message and "raw ids" in hint


def test_a_label_of_another_size_names_both_files_and_sizes(voc):
    dataset, sample = voc
    message, _ = refused(dataset, sample, (24, 32))
    assert f"{sample.source} is 32x24" in message and f"{sample.label} is 16x12" in message
    assert read_label(sample, dataset).shape == SIZE


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_of_the_voc_palette_are_recognised_and_not_decoded(mode, voc):
    dataset, sample = voc
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 64, 128], [224, 224, 192]], np.uint8)
    Image.fromarray(np.tile(colours, (12, 4, 1))).convert(mode).save(sample.label)
    message, hint = refused(dataset, sample)
    assert f"{sample.label} is an {mode} image, not class ids" in message
    assert "VOC palette" in hint and "take the original" in hint


def test_other_colours_are_only_refused(voc):
    dataset, sample = voc
    save_image(sample.label)
    message, hint = refused(dataset, sample)
    assert "RGB image, not class ids" in message and "VOC palette" not in hint


def test_grey_with_alpha_and_jpeg_are_refused(voc):
    dataset, sample = voc
    Image.new("LA", (16, 12)).save(sample.label)
    assert "is an LA image" in refused(dataset, sample)[0]
    Image.new("L", (16, 12)).save(sample.label, format="JPEG")
    assert "JPEG, whose compression changes class ids" in refused(dataset, sample)[0]


def test_damaged_and_missing_files_are_named(voc):
    dataset, sample = voc
    whole = sample.label.read_bytes()
    for data, said in ((whole[:60], "damaged"), (b"", "not an image"), (b"hello", "not an image")):
        sample.label.write_bytes(data)
        message, _ = refused(dataset, sample)
        assert str(sample.label) in message and said in message
    sample.label.unlink()
    assert refused(dataset, sample)[0] == f"no such label file: {sample.label}"
    sample.label.mkdir()
    assert "is a folder" in refused(dataset, sample)[0]


def test_a_picture_without_ground_truth_has_no_label_to_read(tmp_path):
    root = make_voc(tmp_path)
    shutil.rmtree(root / "SegmentationClass")
    dataset = open_dataset(root)
    assert "has no ground truth" in refused(dataset, dataset.samples[0])[0]


def test_wide_integers_that_fit_are_read_and_others_refused(tmp_path):
    path = tmp_path / "x.tif"
    Image.fromarray(np.array([[0, 65535]], np.int32)).save(path)
    assert read_values(path).tolist() == [[0, 65535]]
    Image.fromarray(np.array([[-1, 70000]], np.int32)).save(path)
    with pytest.raises(DatasetError, match="numbers from -1 to 70000"):
        read_values(path)


def test_a_mask_of_ones_own_beyond_its_classes(tmp_path):
    root = make_folder(tmp_path, names=("a",))
    save_label(root / "masks/a.png", (0, 3))
    dataset = open_dataset(root)
    message, hint = refused(dataset, dataset.samples[0])
    assert (
        "3 is no label of" in message
        and "(96 pixels)" in message
        and "0 to 2, 255 (ignored)" in message
        and "classes.txt" in hint
    )
