"""Data sets: which one a folder is, and what every file of the registry must have."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from dataset_trees import (
    CONTEXT,
    VOC,
    make_ade20k,
    make_coco,
    make_context,
    make_from,
    make_voc,
    names,
    refused,
    save_image,
)

from clipseg_cli.config import PROTOCOLS
from clipseg_cli.data.classes import benchmark_names, load_benchmark
from clipseg_cli.data.datasets import DATASETS, open_dataset, read_label, recognise
from clipseg_cli.errors import UsageError

PUBLISHED = [name for name in DATASETS.names() if DATASETS.get(name).benchmarks]
FORMS = [
    (name, benchmark, index)
    for name in PUBLISHED
    for index, form in enumerate(DATASETS.get(name).labels)
    for benchmark in form.values
]


PARTS_OF_VOC = ("JPEGImages", "ImageSets", "ImageSets/Segmentation", "SegmentationClass")


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


@pytest.mark.parametrize("given", ["a/VOCdevkit/VOC2012", "a/VOCdevkit"])
def test_the_root_is_found_one_level_below(given, tmp_path):
    voc = make_voc(tmp_path / "a/VOCdevkit/VOC2012")
    dataset = open_dataset(tmp_path / given)
    assert dataset.root == voc and names(dataset) == list(VOC["train"])
    told = any(f"found in {voc}" in note for note in dataset.notes)
    assert told == (tmp_path / given != voc)


@pytest.mark.parametrize("part", ["", *PARTS_OF_VOC])
def test_parts_of_a_data_set_and_what_lies_around_it_are_not_guessed_from(part, tmp_path):
    """Where images lie, the hint names the way; elsewhere it lists what a data set looks like."""
    voc = make_voc(tmp_path / "a/VOCdevkit/VOC2012")
    _, hint = refused(voc / part if part else tmp_path / "a")
    assert (
        "name that one's own folder" if part in ("", "JPEGImages", "SegmentationClass") else "known: "
    ) in hint


@pytest.mark.parametrize("given", [".", "VOC2012", "VOC2012/", "../voc/VOC2012"])
def test_relative_paths_and_text_are_roots_too(given, tmp_path, monkeypatch):
    make_voc(tmp_path / "voc/VOC2012")
    monkeypatch.chdir(tmp_path / "voc")
    assert len(open_dataset(given).samples) == 2


def test_a_folder_beside_the_pictures_is_no_part_of_the_data_set(tmp_path):
    save_image(make_voc(tmp_path / "voc") / "holiday" / "x.jpg")
    assert "nothing names its classes" in refused(tmp_path / "voc/holiday")[0]
    assert names(open_dataset(tmp_path / "voc/holiday", classes="cat")) == ["x"]


def test_the_image_folder_of_a_benchmark_with_classes_is_a_folder_of_pictures(tmp_path):
    dataset = open_dataset(make_voc(tmp_path) / "JPEGImages", classes="cat,dog")
    assert (dataset.name, dataset.benchmark, dataset.classes.names) == ("folder", None, ("cat", "dog"))
    assert len(dataset.samples) == 5


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
