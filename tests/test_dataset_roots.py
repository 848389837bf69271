"""Half-downloaded and wrong roots: what is missing is said, and what is there is used."""

from __future__ import annotations

import shutil

import pytest
from dataset_trees import (
    CITYSCAPES,
    VOC,
    make_ade20k,
    make_cityscapes,
    make_coco,
    make_context,
    make_voc,
    make_voc_aug,
    names,
    refused,
)

from clipseg_cli.data.datasets import open_dataset


@pytest.mark.parametrize(
    ("make", "gone", "missing", "expected"),
    [
        (make_voc, "SegmentationClass", "SegmentationClass/", "SegmentationClass/2007_000033.png"),
        (make_voc, "JPEGImages", "JPEGImages/", "JPEGImages/2007_000033.jpg"),
        (make_voc, "ImageSets", "ImageSets/Segmentation/val.txt", "ImageSets/Segmentation/val.txt"),
        (
            make_coco,
            "annotations",
            "annotations/val2017/",
            "annotations/val2017/000000000139_labelTrainIds.png",
        ),
        (make_coco, "images/val2017", "images/val2017/", "images/val2017/000000000139.jpg"),
        (
            make_ade20k,
            "annotations",
            "annotations/validation/",
            "annotations/validation/ADE_val_00000001.png",
        ),
        (make_ade20k, "images", "images/validation/", "images/validation/ADE_val_00000001.jpg"),
        (
            make_cityscapes,
            "gtFine",
            "gtFine/val/",
            "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelTrainIds.png",
        ),
        (
            make_cityscapes,
            "leftImg8bit",
            "leftImg8bit/val/",
            "leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png",
        ),
        (
            make_context,
            "SegmentationClassContext",
            "SegmentationClassContext/",
            "SegmentationClassContext/2008_000009.png",
        ),
    ],
)
def test_a_half_downloaded_root_is_told_apart(make, gone, missing, expected, tmp_path):
    root = make(tmp_path / "half")
    title = open_dataset(root).title
    shutil.rmtree(root / gone)
    message, hint = refused(root, purpose="score")
    assert f"{root} looks like {title} without {missing}" in message
    assert f"expected {root / expected}" in message and hint


def test_everything_that_is_missing_is_said_at_once(tmp_path):
    root = make_voc(tmp_path)
    shutil.rmtree(root / "SegmentationClass")
    shutil.rmtree(root / "ImageSets")
    message, _ = refused(root, purpose="score")
    assert "without ImageSets/Segmentation/val.txt and without SegmentationClass/;" in message


def test_labelling_needs_no_ground_truth(tmp_path):
    root = make_voc(tmp_path)
    shutil.rmtree(root / "SegmentationClass")
    dataset = open_dataset(root)
    assert [sample.label for sample in dataset.samples] == [None, None]
    assert dataset.label_ids is None and dataset.labels_are == ""


def test_labelling_without_lists_says_how_to_take_every_picture(tmp_path):
    root = make_voc(tmp_path)
    shutil.rmtree(root / "ImageSets")
    message, hint = refused(root)
    assert "ImageSets/Segmentation/train.txt" in message and "--split all" in hint
    assert names(open_dataset(root, split="all")) == sorted((*VOC["train"], *VOC["val"]))


def test_only_one_split_downloaded_suggests_it(tmp_path):
    root = make_coco(tmp_path)
    shutil.rmtree(root / "images/train2017")
    message, hint = refused(root)
    assert "without images/train2017/" in message and hint == "another split is there: --split val"
    assert open_dataset(root, purpose="score").split == "val"


def test_missing_label_files_are_counted_and_listed(tmp_path):
    many = {"train": ("2007_000032",), "val": tuple(f"2007_{i:06}" for i in range(20))}
    root = make_voc(tmp_path, names=many)
    for i in range(12):
        (root / f"SegmentationClass/2007_{i:06}.png").unlink()
    message, hint = refused(root, purpose="score")
    assert "12 of 20 images have no label file" in message and "and 7 more" in message
    assert "SegmentationClass/2007_000004.png" in message and "2007_000005" not in message
    assert "--split" in hint
    labels = [sample.label is None for sample in open_dataset(root, split="val").samples]
    assert labels == [True] * 12 + [False] * 8


def test_train_ids_win_over_raw_ids_and_forms_are_not_mixed(tmp_path):
    make_cityscapes(tmp_path, labels=("labelTrainIds", "labelIds"))
    assert open_dataset(tmp_path, purpose="score").labels_are.startswith("train ids")
    (tmp_path / f"gtFine/val/{CITYSCAPES['val'][0]}_gtFine_labelTrainIds.png").unlink()
    dataset = open_dataset(tmp_path, purpose="score")
    assert dataset.labels_are.startswith("label ids")
    assert all(sample.label.name.endswith("_labelIds.png") for sample in dataset.samples)


@pytest.mark.parametrize("folder", ["annotations", "stuffthingmaps", "stuffthingmaps_trainval2017"])
def test_raw_coco_labels_lie_where_people_put_them(folder, tmp_path):
    make_coco(tmp_path, labels="raw", folder=folder)
    for benchmark in ("coco-stuff", "coco-object"):
        dataset = open_dataset(tmp_path, benchmark=benchmark, purpose="score")
        assert dataset.samples[0].label == tmp_path / folder / "val2017/000000000139.png"


def test_trainaug_takes_the_augmented_labels(tmp_path):
    dataset = open_dataset(make_voc_aug(make_voc(tmp_path)), split="trainaug", purpose="score")
    assert len(dataset.samples) == 4
    assert {sample.label.parent.name for sample in dataset.samples} == {"SegmentationClassAug"}


@pytest.mark.parametrize(
    "what", ["nothing", "a text file", "no such folder", "a file", "under a file", "too long"]
)
def test_what_is_no_data_set_at_all(what, tmp_path):
    (tmp_path / "f.txt").write_text("x")
    (tmp_path / "f.md").write_text("x")
    (tmp_path / "empty").mkdir()
    given = {"nothing": "empty", "a text file": ".", "no such folder": "empt", "a file": "f.md"}
    message, hint = refused(tmp_path / given.get(what, "f.txt/x" if what == "under a file" else "x" * 5000))
    if what in ("nothing", "a text file"):
        assert "no images" in message and "PASCAL VOC 2012 (" in hint and "Cityscapes (" in hint
    elif what == "a file":
        assert "is a file" in message
    else:
        assert message.startswith("no such folder")
    assert what != "no such folder" or "'empty'" in hint
