"""A folder of one's own as a data set."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from dataset_trees import (
    make_ade20k,
    make_folder,
    make_voc,
    names,
    refused,
    save_image,
    save_label,
)

from clipseg_cli.data.datasets import open_dataset, read_label
from clipseg_cli.errors import ClipsegError, UsageError


def test_own_folder_with_masks_and_classes(tmp_path):
    dataset = open_dataset(make_folder(tmp_path), purpose="score")
    assert (dataset.name, dataset.benchmark, dataset.split) == ("folder", None, "")
    assert names(dataset) == ["a", "trip/b"] and dataset.unseen == ()
    assert dataset.classes.names == ("cat", "dog", "couch")
    assert dataset.classes.aliases[2] == ("couch", "sofa") and dataset.classes.background is None
    labels = read_label(dataset.samples[1], dataset)
    assert set(labels.ravel().tolist()) == {-1, 0, 1, 2}
    assert "own folder" in refused(tmp_path / "images")[1]


def test_own_lists_are_the_default_splits(tmp_path):
    root = make_folder(tmp_path, names=("a", "b", "c"))
    (root / "train.txt").write_text("c.jpg\na\n")
    (root / "val.txt").write_text("b\n")
    assert names(open_dataset(root)) == ["c", "a"]
    assert names(open_dataset(root, purpose="score")) == ["b"]
    assert names(open_dataset(root, split="all")) == ["a", "b", "c"]
    (root / "val.txt").unlink()
    assert "no such file" in refused(root, split="val")[0]


def test_more_classes_than_8_bits_hold_count_in_16(tmp_path):
    root = make_folder(tmp_path, names=("a",), classes=[f"c{i}" for i in range(300)])
    save_label(root / "masks/a.png", (0, 255, 299, 65535), mode="I;16")
    dataset = open_dataset(root)
    assert set(read_label(dataset.samples[0], dataset).ravel().tolist()) == {-1, 0, 255, 299}


def test_classes_of_the_option_against_those_of_the_file(tmp_path):
    root = make_folder(tmp_path)
    message, hint = refused(root, UsageError, classes="cat,dog")
    assert "classes.txt" in message and "same names" in hint
    dataset = open_dataset(root, classes="cat|kitten,dog,couch")
    assert dataset.classes.aliases[0] == ("cat", "kitten") and any("--classes" in n for n in dataset.notes)
    shutil.rmtree(root / "masks")
    assert open_dataset(root, classes="x,y", background="sky").classes.names == ("background", "x", "y")


def test_masks_without_a_class_file_count_by_the_option(tmp_path):
    root = make_folder(tmp_path, classes=None)
    assert "nothing names its classes" in refused(root)[0]
    assert len(open_dataset(root, classes="a,b,c", purpose="score").classes) == 3


def test_a_bare_folder_needs_classes(tmp_path):
    save_image(tmp_path / "trip/x.jpg")
    save_image(tmp_path / "y.png")
    message, hint = refused(tmp_path)
    assert "nothing names its classes" in message and "--classes cat,dog" in hint
    dataset = open_dataset(tmp_path, classes="cat,dog", background="sky")
    assert names(dataset) == ["trip/x", "y"] and dataset.classes.background == 0
    assert dataset.label_ids is None and dataset.title == "a folder of pictures"
    message, hint = refused(tmp_path, classes="cat", purpose="score")
    assert "without ground truth" in message and "masks/" in hint


def test_masks_that_are_missing_are_counted(tmp_path):
    root = make_folder(tmp_path, names=("a", "b", "c"))
    (root / "masks/b.png").unlink()
    message, _ = refused(root, purpose="score")
    assert "1 of 3 images has no label file" in message and str(root / "masks/b.png") in message
    shutil.rmtree(root / "masks")
    assert "without masks/" in refused(root, purpose="score")[0]


def test_pictures_that_only_a_suffix_tells_apart_keep_it(tmp_path):
    save_image(tmp_path / "x.jpg")
    save_image(tmp_path / "x.png")
    assert names(open_dataset(tmp_path, classes="cat")) == ["x.jpg", "x.png"]


def test_unreadable_folders_are_noted_and_in_a_benchmark_an_error(tmp_path, monkeypatch):
    """The file system refuses one folder; by its permissions the user root could read it all the same."""
    save_image(tmp_path / "own/x.jpg")
    save_image(tmp_path / "own/locked/y.jpg")
    make_ade20k(tmp_path / "ade").joinpath("images/training/locked").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    dataset = open_dataset(tmp_path / "own", classes="cat")
    assert names(dataset) == ["x"] and any("cannot read this folder" in note for note in dataset.notes)
    assert "images/training/locked" in refused(tmp_path / "ade")[0]


def test_a_bad_class_file_names_its_line(tmp_path):
    root = make_folder(tmp_path, classes=("cat", "cat"))
    with pytest.raises(ClipsegError, match=r"classes.txt:2: 'cat' appears twice"):
        open_dataset(root)


def test_opening_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    root = make_voc(tmp_path / "voc")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("voc").samples[0].source.path == Path("voc/JPEGImages/2007_000032.jpg")
    assert open_dataset(root).samples[0].source.path == root / "JPEGImages/2007_000032.jpg"


def test_a_class_file_beside_bare_pictures_names_the_classes(tmp_path):
    save_image(tmp_path / "x.jpg")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    dataset = open_dataset(tmp_path)
    assert names(dataset) == ["x"] and dataset.classes.names == ("cat", "dog")


def test_own_folders_may_be_called_like_those_of_a_benchmark(tmp_path):
    root = make_folder(tmp_path, names=("training/a", "validation/b"))
    assert open_dataset(root, purpose="score").name == "folder"
