"""The committed data set samples/emoji-voc is an exact PASCAL VOC tree."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipseg_cli.outputs import voc_palette

ROOT = Path(__file__).parents[1] / "samples" / "emoji-voc"
SPLITS = ROOT / "ImageSets" / "Segmentation"
VOID = 255


def split(name):
    return (SPLITS / f"{name}.txt").read_text(encoding="utf-8").split()


def read_labels(folder, name):
    with Image.open(ROOT / folder / f"{name}.png") as image:
        assert (image.format, image.mode) == ("PNG", "P")
        assert image.getpalette() == voc_palette().ravel().tolist()
        return np.array(image)


@pytest.fixture(scope="module")
def classes():
    return {name: read_labels("SegmentationClass", name) for name in split("trainval")}


@pytest.fixture(scope="module")
def objects():
    return {name: read_labels("SegmentationObject", name) for name in split("trainval")}


def touching(labels):
    """Pairs of different values that are neighbours, also across a corner, without void."""
    pairs = (
        (labels[1:], labels[:-1]),
        (labels[:, 1:], labels[:, :-1]),
        (labels[1:, 1:], labels[:-1, :-1]),
        (labels[1:, :-1], labels[:-1, 1:]),
    )
    found = set()
    for one, other in pairs:
        wrong = (one != other) & (one != VOID) & (other != VOID)
        found.update(zip(one[wrong].tolist(), other[wrong].tolist(), strict=True))
    return found


def test_train_and_val_are_disjoint_and_make_up_trainval():
    train, val, both = split("train"), split("val"), split("trainval")
    assert (len(train), len(val)) == (60, 40)
    assert not set(train) & set(val)
    assert sorted(train + val) == both


@pytest.mark.parametrize(
    ("folder", "ending"), [("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("SegmentationObject", "png")]
)
def test_every_folder_holds_the_named_pictures_and_nothing_else(folder, ending):
    assert sorted(p.name for p in (ROOT / folder).iterdir()) == [f"{n}.{ending}" for n in split("trainval")]


def test_labels_are_as_large_as_their_picture(classes, objects):
    for name in split("trainval"):
        with Image.open(ROOT / "JPEGImages" / f"{name}.jpg") as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert (image.height, image.width) == classes[name].shape == objects[name].shape, name


def test_values_are_the_21_classes_and_void(classes):
    assert set(np.unique(np.concatenate([labels.ravel() for labels in classes.values()]))) == {
        *range(21),
        VOID,
    }


@pytest.mark.parametrize("name", ["train", "val"])
def test_every_class_is_in_at_least_four_pictures_of_each_split(name, classes):
    seen = [label for image in split(name) for label in np.unique(classes[image])]
    assert all(seen.count(label) >= 4 for label in range(21))


def test_void_lies_between_whatever_differs(classes, objects):
    for name in split("trainval"):
        assert not touching(classes[name]), name
        assert not touching(objects[name]), name


def test_every_object_has_one_class_and_both_have_the_same_void(classes, objects):
    for name in split("trainval"):
        assert np.array_equal(classes[name] == VOID, objects[name] == VOID), name
        for number in np.unique(objects[name]):
            assert len(np.unique(classes[name][objects[name] == number])) == 1, (name, number)


def test_the_tree_stays_small():
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file()) < 4_000_000
