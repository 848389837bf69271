"""Splits: which pictures a list or a folder means."""

from __future__ import annotations

import pytest
from dataset_trees import (
    COCO,
    make_ade20k,
    make_cityscapes,
    make_coco,
    make_voc,
    names,
    refused,
    save_image,
)

from clipseg_cli.data.datasets import open_dataset


def write_list(root, text):
    path = root / "list.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "2007_000061\n2007_000032\n",
        "2007_000061.jpg\r\n2007_000032.jpg\r\n",
        "\ufeff2007_000061\n\n# comment\n  2007_000032  ",
        "2007_000061  1\n2007_000032 -1\n",
        "./2007_000061\n2007_000032",
    ],
)
def test_a_list_of_ones_own_keeps_its_order(text, tmp_path):
    root = make_voc(tmp_path)
    path = write_list(root, text)
    dataset = open_dataset(root, split=str(path), purpose="score")
    assert names(dataset) == ["2007_000061", "2007_000032"] and dataset.split == str(path)


@pytest.mark.parametrize(
    "line",
    [
        "frankfurt/frankfurt_000000_000294",
        "frankfurt/frankfurt_000000_000294_leftImg8bit.png",
        "val/frankfurt/frankfurt_000000_000294_leftImg8bit",
    ],
)
def test_names_in_a_list_may_keep_ending_and_split(line, tmp_path):
    root = make_cityscapes(tmp_path)
    dataset = open_dataset(root, split=str(write_list(root, line)), purpose="score")
    assert names(dataset) == ["frankfurt/frankfurt_000000_000294"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no image names in this file"),
        ("# nothing\n\n", "no image names in this file"),
        ("2007_000032\n../secret\n", "list.txt:2: '../secret' leads out of the data set"),
        ("/JPEGImages/2007_000032.jpg /x.png", "list.txt:1: "),
        ("C:\\pictures\\x.jpg", "leads out of the data set"),
        (
            "2007_000032\n2007_000033\n2007_000032.jpg",
            "list.txt:3: '2007_000032.jpg' appears twice (first in line 1)",
        ),
        ("2007_000032\n2007_000032 2", "1 of its 2 names are not images"),
        ("2007_000032\n" + "".join(f"n{i}\n" for i in range(8)), "8 of its 9 names are not images in"),
        ("2007_000032\n" + "".join(f"n{i}\n" for i in range(8)), "n0, n1, n2, n3, n4 and 3 more"),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_a_bad_list_is_refused_with_its_line(text, message, own, tmp_path):
    root = make_voc(tmp_path)
    path = write_list(root, text)
    if not own:
        path = path.rename(root / "ImageSets/Segmentation/train.txt")
        message = message.replace("list.txt", "train.txt")
    for purpose in ("label", "score"):
        said, hint = refused(root, split=str(path) if own else "train", purpose=purpose)
        assert message in said and path.name in said and hint


def test_a_list_that_is_missing_a_folder_or_not_text(tmp_path):
    root = make_voc(tmp_path)
    assert "no such file" in refused(root, split=str(tmp_path / "none.txt"))[0]
    assert "cannot read" in refused(root, split=str(tmp_path))[0]
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refused(root, split=str(tmp_path / "list.txt"))[0]


def test_all_means_the_pictures_of_every_split(tmp_path):
    assert names(open_dataset(make_coco(tmp_path), split="all", purpose="score")) == sorted(
        (*COCO["train"], *COCO["val"])
    )


def test_one_name_in_two_splits_is_not_lost(tmp_path):
    root = make_coco(tmp_path)
    save_image(root / "images/train2017/000000000139.jpg")
    message, hint = refused(root, split="all")
    assert "train2017/000000000139.jpg" in message and "val2017" in message and "one split" in hint


def test_hidden_files_are_no_pictures(tmp_path):
    root = make_ade20k(tmp_path)
    (root / "images/training/._ADE_train_00000001.jpg").write_bytes(b"x")
    assert len(open_dataset(root).samples) == 2


def test_linked_folders_are_followed_once(tmp_path):
    real = make_ade20k(tmp_path / "real")
    (real / "images/training/loop").symlink_to(real / "images", target_is_directory=True)
    (tmp_path / "link").symlink_to(real, target_is_directory=True)
    assert len(open_dataset(tmp_path / "link", split="val").samples) == 2
    assert "ADE_train_00000001" in names(open_dataset(tmp_path / "link"))
