"""Data sets: which one a folder is, which pictures a split means, and what is said about a wrong folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import (
    CITYSCAPES,
    COCO,
    CONTEXT,
    VOC,
    make_ade20k,
    make_cityscapes,
    make_coco,
    make_context,
    make_folder,
    make_from,
    make_voc,
    make_voc_aug,
    save_image,
    save_label,
)

from clipseg_cli.config import PROTOCOLS
from clipseg_cli.data.classes import benchmark_names, load_benchmark
from clipseg_cli.data.datasets import DATASETS, open_dataset, read_label, recognise
from clipseg_cli.errors import ClipsegError, DatasetError, UsageError

PUBLISHED = [name for name in DATASETS.names() if DATASETS.get(name).benchmarks]
FORMS = [
    (name, benchmark, index)
    for name in PUBLISHED
    for index, form in enumerate(DATASETS.get(name).labels)
    for benchmark in form.values
]


PARTS_OF_VOC = ("", "/JPEGImages", "/ImageSets", "/ImageSets/Segmentation", "/SegmentationClass")


def names(dataset):
    return [str(sample.source.relative) for sample in dataset.samples]


def refused(root, kind=DatasetError, **options):
    """Message and hint of the error that a folder is refused with."""
    with pytest.raises(kind) as caught:
        open_dataset(root, **options)
    return caught.value.message, caught.value.hint


# Every data set in the registry


@pytest.mark.parametrize(("name", "benchmark", "form"), FORMS)
def test_every_form_of_ground_truth_is_found_and_read(name, benchmark, form, tmp_path):
    layout = DATASETS.get(name)
    numbers = layout.labels[form].values[benchmark]
    some = sorted(numbers)[:3] + sorted(numbers)[-3:]
    make_from(layout, tmp_path, layout.labels[form], some)
    for split, purpose in ((layout.label_split, "label"), (layout.score_split, "score")):
        dataset = open_dataset(tmp_path, benchmark=benchmark, purpose=purpose)
        assert (dataset.name, dataset.title, dataset.root) == (name, layout.title, tmp_path)
        assert (dataset.benchmark, dataset.split) == (benchmark, split)
        assert dataset.labels_are and names(dataset) == [layout.first[split]]
        labels = read_label(dataset.samples[0], dataset, (12, 16))
        assert labels.dtype == np.int32
        assert set(labels.ravel().tolist()) == {numbers[value] for value in some}


@pytest.mark.parametrize(("name", "benchmark", "form"), FORMS)
def test_ids_of_a_form_are_the_classes_of_its_benchmark(name, benchmark, form):
    ids = {id_ for id_ in DATASETS.get(name).labels[form].values[benchmark].values() if id_ >= 0}
    assert ids == set(range(len(load_benchmark(benchmark)["labels"])))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_layout_has_what_messages_and_defaults_need(name):
    layout = DATASETS.get(name)
    assert {layout.label_split, layout.score_split} <= layout.splits.keys() & layout.first.keys()
    assert layout.title and layout.marks and layout.labels
    assert all(set(form.values) == set(layout.benchmarks) for form in layout.labels)
    assert set(layout.gives_way_to) <= set(DATASETS.names())


def test_every_benchmark_belongs_to_one_data_set():
    offered = [benchmark for name in PUBLISHED for benchmark in DATASETS.get(name).benchmarks]
    assert sorted(offered) == benchmark_names()


@pytest.mark.parametrize("benchmark", benchmark_names())
def test_the_table_says_what_the_benchmarks_file_says(benchmark):
    layout = next(x for x in map(DATASETS.get, PUBLISHED) if benchmark in x.benchmarks)
    table = layout.labels[0].values[benchmark]
    facts = load_benchmark(benchmark)
    shift = 1 if "value - 1" in facts["label_map"] else 0
    expected = {i + shift: i for i in range(len(facts["labels"]))} | {facts["ignore"]: -1}
    assert table == (expected | {0: -1} if shift else expected)


# Classes


@pytest.mark.parametrize("words", ["prompt_names", "maskclip_prompt_names", "clip_diy_prompt_names"])
@pytest.mark.parametrize(("name", "benchmark", "form"), [form for form in FORMS if form[2] == 0])
def test_words_of_the_classes_come_from_the_benchmark(name, benchmark, form, words, tmp_path):
    make_from(DATASETS.get(name), tmp_path, DATASETS.get(name).labels[0], (1, 2))
    classes = open_dataset(tmp_path, benchmark=benchmark, words=words).classes
    facts = load_benchmark(benchmark)
    assert classes.names == tuple(facts["labels"])
    found = facts.get(words, facts["prompt_names"])
    assert classes.aliases == tuple((w,) if isinstance(w, str) else tuple(w) for w in found)
    assert classes.background == (0 if facts["labels"][0] == "background" else None)


def test_clip_diy_has_its_own_words_for_voc(tmp_path):
    classes = open_dataset(make_voc(tmp_path), words="clip_diy_prompt_names").classes
    assert classes.aliases[0] == ("background",)
    assert classes.aliases[16] == ("potted plant",) and classes.aliases[20] == ("tv/monitor",)


def test_unseen_classes_are_those_of_the_benchmark(tmp_path):
    make_voc(tmp_path)
    assert open_dataset(tmp_path, benchmark="voc20").unseen == (
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    )
    assert open_dataset(tmp_path).unseen == ()


def test_a_benchmark_has_its_own_classes(tmp_path):
    message, hint = refused(make_voc(tmp_path / "voc"), UsageError, classes="cat,dog")
    assert "is PASCAL VOC 2012: its benchmark names the classes" in message
    assert "--benchmark voc21|voc20" in hint and str(tmp_path / "voc/JPEGImages") in hint


def test_the_background_option_is_said_to_be_unused(tmp_path):
    notes = open_dataset(make_voc(tmp_path), background="sky,tree").notes
    assert any("--background" in note for note in notes)


# Recognition


@pytest.mark.parametrize(
    "given",
    ["a", "a/VOCdevkit", *(f"a/VOCdevkit/VOC2012{part}" for part in PARTS_OF_VOC)],
)
def test_the_root_is_found_from_above_and_below(given, tmp_path):
    voc = make_voc(tmp_path / "a/VOCdevkit/VOC2012")
    dataset = open_dataset(tmp_path / given)
    assert dataset.root == voc and names(dataset) == list(VOC["train"])
    told = any(f"found in {voc}" in note for note in dataset.notes)
    assert told == (tmp_path / given != voc)


@pytest.mark.parametrize("given", [".", "VOC2012", "VOC2012/", "VOC2012/JPEGImages", "../voc/VOC2012"])
def test_relative_paths_and_text_are_roots_too(given, tmp_path, monkeypatch):
    make_voc(tmp_path / "voc/VOC2012")
    monkeypatch.chdir(tmp_path / "voc")
    assert len(open_dataset(given).samples) == 2


def test_inside_the_root_it_is_found_by_a_dot(tmp_path, monkeypatch):
    make_voc(tmp_path / "voc")
    monkeypatch.chdir(tmp_path / "voc/JPEGImages")
    assert open_dataset(".").root.resolve() == (tmp_path / "voc").resolve()


def test_a_folder_beside_the_pictures_is_no_part_of_the_data_set(tmp_path):
    save_image(make_voc(tmp_path / "voc") / "holiday" / "x.jpg")
    assert "nothing names its classes" in refused(tmp_path / "voc/holiday")[0]
    assert names(open_dataset(tmp_path / "voc/holiday", classes="cat")) == ["x"]


def test_the_image_folder_of_a_benchmark_with_classes_is_a_folder_of_pictures(tmp_path):
    dataset = open_dataset(make_voc(tmp_path) / "JPEGImages", classes="cat,dog")
    assert (dataset.name, dataset.benchmark, dataset.classes.names) == ("folder", None, ("cat", "dog"))
    assert len(dataset.samples) == 5


def test_a_folder_of_one_split_means_that_split(tmp_path):
    dataset = open_dataset(make_coco(tmp_path) / "images/val2017")
    assert (dataset.split, names(dataset)) == ("val", list(COCO["val"]))
    assert open_dataset(tmp_path / "images").split == "train"
    cityscapes = make_cityscapes(tmp_path / "cs")
    assert open_dataset(cityscapes / "leftImg8bit/val/frankfurt").split == "val"


def test_context_wins_over_voc_where_both_are_complete(tmp_path):
    make_context(make_voc(tmp_path))
    dataset = open_dataset(tmp_path)
    assert (dataset.benchmark, names(dataset)) == ("context60", list(CONTEXT["train"]))
    assert any("also holds PASCAL VOC 2012: --benchmark voc21" in note for note in dataset.notes)
    assert open_dataset(tmp_path, benchmark="voc21").name == "voc"
    shutil.rmtree(tmp_path / "SegmentationClassContext")
    assert open_dataset(tmp_path).name == "voc"


def test_coco_stuff_is_the_default_of_its_tree(tmp_path):
    make_coco(tmp_path)
    dataset = open_dataset(tmp_path)
    assert dataset.benchmark == "coco-stuff"
    assert any("--benchmark coco-object" in note for note in dataset.notes)
    assert open_dataset(tmp_path, benchmark="coco-object").name == "coco_object"


def test_a_tree_with_only_instance_train_ids_is_coco_object(tmp_path):
    make_coco(tmp_path, labels="instance")
    for purpose in ("label", "score"):
        assert open_dataset(tmp_path, purpose=purpose).benchmark == "coco-object"
    assert "without annotations/val2017/" in refused(tmp_path, benchmark="coco-stuff", purpose="score")[0]


def test_a_protocol_prefers_its_own_benchmarks(tmp_path):
    make_context(make_voc(tmp_path / "both"))
    make_coco(tmp_path / "coco")
    chosen = {
        (protocol.name, root): open_dataset(tmp_path / root, prefer=protocol.benchmarks).benchmark
        for protocol in PROTOCOLS.values()
        for root in ("both", "coco")
    }
    assert chosen[("default", "both")] == chosen[("sclip", "both")] == "context60"
    assert chosen[("maskclip", "both")] == "context59"
    assert chosen[("clip-diy", "both")] == "voc21"  # Context is not among its own
    assert chosen[("sclip", "coco")] == chosen[("maskclip", "coco")] == "coco-stuff"
    assert chosen[("clip-diy", "coco")] == "coco-object"
    assert open_dataset(tmp_path / "both", prefer=("voc21",), benchmark="context60").benchmark == "context60"


def test_several_data_sets_below_are_not_guessed_between(tmp_path):
    make_voc(tmp_path / "VOC2012")
    make_ade20k(tmp_path / "ADEChallengeData2016")
    message, hint = refused(tmp_path)
    assert f"{tmp_path} holds several data sets" in message
    assert "VOC2012 (PASCAL VOC 2012)" in message and "ADEChallengeData2016 (ADE20K" in message
    assert "--benchmark" in hint
    assert open_dataset(tmp_path, benchmark="ade20k").name == "ade20k"


def test_the_year_in_the_name_decides_between_two_of_a_kind(tmp_path):
    make_voc(tmp_path / "VOC2007")
    make_voc(tmp_path / "VOC2012")
    dataset = open_dataset(tmp_path)
    assert dataset.root.name == "VOC2012"
    assert any("not" in note and "VOC2007" in note for note in dataset.notes)


def test_recognise_says_what_it_saw(tmp_path):
    make_context(make_voc(tmp_path / "d/VOC2010"))
    found = [(f.name, f.root, f.complete) for f in recognise(tmp_path / "d")]
    root = tmp_path / "d/VOC2010"
    assert found == [("context", root, True), ("voc", root, True)]
    assert recognise(save_image(tmp_path / "p/x.jpg").parent) == []


@pytest.mark.parametrize("benchmark", ["ade20k", "context60"])
def test_a_benchmark_of_another_data_set(benchmark, tmp_path):
    message, hint = refused(make_voc(tmp_path), UsageError, benchmark=benchmark)
    assert f"'{benchmark}' belongs to" in message and "is PASCAL VOC 2012" in message
    assert hint == "its benchmarks: voc21, voc20"


def test_a_benchmark_for_a_folder_of_pictures(tmp_path):
    save_image(tmp_path / "x.jpg")
    message, hint = refused(tmp_path, UsageError, benchmark="voc21")
    assert "does not look like it" in message and "--classes voc21" in hint


def test_unknown_benchmark_and_split_name_the_nearest(tmp_path):
    make_voc(tmp_path)
    assert refused(tmp_path, UsageError, benchmark="voc2l")[1].startswith("did you mean 'voc21'")
    assert "known: ade20k" in refused(tmp_path, UsageError, benchmark="xyzzy")[1]
    message, hint = refused(tmp_path, UsageError, split="trianval")
    assert "unknown split 'trianval' of PASCAL VOC 2012" in message and "'trainval'" in hint


# Half-downloaded and wrong roots


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
    assert "12 of 20 pictures have no label file" in message and "and 7 more" in message
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
    (tmp_path / "empty").mkdir()
    given = {"nothing": "empty", "a text file": ".", "no such folder": "empt", "a file": "f.txt"}
    message, hint = refused(tmp_path / given.get(what, "f.txt/x" if what == "under a file" else "x" * 5000))
    if what in ("nothing", "a text file"):
        assert "no pictures" in message and "PASCAL VOC 2012 (" in hint and "Cityscapes (" in hint
    elif what == "a file":
        assert "is a file" in message
    else:
        assert message.startswith("no such folder")
    assert what != "no such folder" or "'empty'" in hint


# Splits


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
        ("", "no picture names in this file"),
        ("# nothing\n\n", "no picture names in this file"),
        ("2007_000032\n../secret\n", "list.txt:2: '../secret' leads out of the data set"),
        ("/JPEGImages/2007_000032.jpg /x.png", "list.txt:1: "),
        ("C:\\pictures\\x.jpg", "leads out of the data set"),
        (
            "2007_000032\n2007_000033\n2007_000032.jpg",
            "list.txt:3: '2007_000032.jpg' appears twice (first in line 1)",
        ),
        ("2007_000032\n2007_000032 2", "1 of its 2 names are not pictures"),
        ("2007_000032\n" + "".join(f"n{i}\n" for i in range(8)), "8 of its 9 names are not pictures in"),
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


# A folder of one's own


def test_own_folder_with_masks_and_classes(tmp_path):
    dataset = open_dataset(make_folder(tmp_path), purpose="score")
    assert (dataset.name, dataset.benchmark, dataset.split) == ("folder", None, "")
    assert names(dataset) == ["a", "trip/b"] and dataset.unseen == ()
    assert dataset.classes.names == ("cat", "dog", "couch")
    assert dataset.classes.aliases[2] == ("couch", "sofa") and dataset.classes.background is None
    labels = read_label(dataset.samples[1], dataset)
    assert set(labels.ravel().tolist()) == {-1, 0, 1, 2}
    for part in ("images", "masks"):
        assert open_dataset(tmp_path / part).root == tmp_path


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
    assert "1 of 3 pictures have no label file" in message and str(root / "masks/b.png") in message
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
