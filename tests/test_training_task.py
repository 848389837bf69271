"""What there is to learn: from a run or a data set, what belongs together, and every refusal with its sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from dataset_trees import make_folder, save_image, save_label
from PIL import Image
from training_trees import (  # noqa: F401
    BACKGROUND,
    DOG,
    SHEEP,
    SIZE,
    TRAIN,
    TV,
    UNSEEN,
    UNSEEN_NAMES,
    VAL,
    copy_run,
    copy_tree,
    finished_training,
    free_run,
    label,
    read_truth,
    session_tree,
    short_config,
    short_training,
    teacher_options,
    truth_path,
    zero_shot_run,
)

from clipseg_cli.config import UNLABELLED
from clipseg_cli.errors import ClipsegError, DatasetError, RunError, UsageError
from clipseg_cli.runs.manifest import Manifest, read_manifest, write_manifest
from clipseg_cli.training.hyperparameters import resolve_hyperparameters
from clipseg_cli.training.samples import TrainingImages
from clipseg_cli.training.setup import build_student
from clipseg_cli.training.task import open_task

IGNORE = 255


@pytest.fixture
def elsewhere(tree, tmp_path):
    """A copy of the data set that may be changed."""
    return copy_tree(tree, tmp_path / "voc")


@pytest.fixture
def run(label_run, elsewhere, tmp_path):
    """A copy of the annotation-free run, over `elsewhere`."""
    return copy_run(label_run, tmp_path / "run", elsewhere)


def task(**options):
    return open_task(short_config(**options))


def refused(kind, **options):
    """Message and hint of the error that options are refused with."""
    with pytest.raises(ClipsegError) as caught:
        task(**options)
    assert type(caught.value) is kind
    return caught.value.message, caught.value.hint


# What is learnt


def test_a_run_brings_its_data_set_its_teacher_and_its_words(label_run, tree, tiny_clip):
    found = task(labels=str(label_run))
    assert (found.dataset.root, found.dataset.benchmark, found.dataset.split) == (tree, "voc21", "train")
    assert [s.source.relative.stem for s in found.samples] == list(TRAIN)
    assert (found.run, found.unseen, found.unlabelled) == (label_run, (), tuple(range(21)))
    assert found.teacher is not None and found.teacher["name"] == tiny_clip.name
    assert (found.config.model, found.config.pretrained) == (tiny_clip.name, str(tiny_clip.weights))
    assert (found.config.templates, len(found.templates)) == ("single", 1)
    assert found.validation is not None
    assert [s.source.relative.stem for s in found.validation.samples] == list(VAL)
    assert found.notes == ()


def test_a_run_s_ways_of_reading_clip_are_recorded(tree, tiny_clip, tmp_path):
    made = label(tiny_clip, tree, tmp_path, prompt_denoising=0.5, key_smoothing=1.0)
    config = task(labels=str(made)).config
    assert (config.prompt_denoising, config.key_smoothing) == (0.5, 1.0)


def test_only_classes_without_ground_truth_are_filled(seen_run, tree, tiny_clip):
    of_run = task(labels=str(seen_run), setting="zero-shot")
    teacher = teacher_options(tiny_clip, tree) | {"setting": "zero-shot", "unseen": " TVmonitor, sheep"}
    of_teacher = task(**teacher)
    assert of_run.unseen == of_run.unlabelled == of_teacher.unseen == of_teacher.unlabelled == UNSEEN
    assert task(dataset=str(tree), setting="supervised").unlabelled == ()


def test_ground_truth_is_there_only_where_it_may_be_read(label_run, seen_run, tree, tiny_clip):
    teacher = teacher_options(tiny_clip, tree)
    without = [
        task(labels=str(label_run)),
        task(labels=str(seen_run), setting="zero-shot"),
        task(**teacher),
    ]
    assert all(sample.label is None for found in without for sample in found.samples)
    reading = [
        task(**teacher, setting="zero-shot", unseen=UNSEEN_NAMES),
        task(dataset=str(tree), setting="supervised"),
    ]
    assert all(sample.label is not None for found in reading for sample in found.samples)


def test_the_background_of_a_student_is_one_word(label_run):
    found = task(labels=str(label_run))
    ours, theirs = found.classes, found.dataset.classes
    assert len(theirs.aliases[0]) > 1 and ours.aliases[0] == ("background",)
    assert (ours.names, ours.aliases[1:], ours.background) == (theirs.names, theirs.aliases[1:], 0)
    assert task(labels=str(label_run)).classes == ours


def test_classes_without_a_background_stay_as_they_are(tree, tiny_clip):
    found = task(**teacher_options(tiny_clip, tree), benchmark="voc20")
    assert found.classes is found.dataset.classes and len(found.classes) == 20


def test_without_pictures_to_score_on_training_goes_on_with_a_note(tree, tiny_clip, elsewhere):
    shutil.rmtree(elsewhere / "SegmentationClass")
    found = task(**teacher_options(tiny_clip, elsewhere))
    assert found.validation is None
    (note,) = found.notes
    assert note.startswith("no validation on the way: ")


def test_a_student_is_scored_under_the_classes_that_it_learns(tiny_clip, tmp_path):
    """Things that are named in a folder of pictures get a background, and their masks count with it."""
    data = make_folder(tmp_path / "data", classes=None)
    options = teacher_options(tiny_clip, data) | {"classes": "cat,couch|sofa"}
    for background, names in (("auto", ("background", "cat", "couch")), ("none", ("cat", "couch"))):
        found = task(**options, background=background)
        assert found.validation is not None
        assert found.validation.classes == found.dataset.classes
        assert found.validation.classes.names == names


def test_pictures_that_are_learnt_and_scored_are_said(tree, tiny_clip):
    found = task(dataset=str(tree), setting="supervised", split="val")
    assert found.notes == ("2 of 2 images to score on are also learnt from",)


# Runs that cannot be learnt from


def test_no_such_folder_and_a_folder_that_is_no_run(tree, tmp_path):
    hint = "make one with clipseg pseudolabel DATASET"
    missing = tmp_path / "none"
    assert refused(RunError, labels=str(missing)) == (f"{missing}: no such folder", hint)
    said = f"{tree} is not a run: it has no manifest.json"
    assert refused(RunError, labels=str(tree)) == (said, hint)


def test_a_run_of_another_kind(taught):
    assert refused(RunError, labels=str(taught.folder)) == (
        f"{taught.folder} is a run of clipseg train, and holds no labels",
        "name one of clipseg pseudolabel",
    )


def test_a_run_that_is_not_finished(run):
    write_manifest(Manifest(read_manifest(run).identity), run)
    assert refused(RunError, labels=str(run)) == (
        f"{run} is not finished",
        "the command that started it goes on with it",
    )


def test_an_edited_manifest(run):
    path = run / "manifest.json"
    path.write_text(path.read_text().replace('"split": "train"', '"split": "val"'))
    message, hint = refused(RunError, labels=str(run))
    assert message == f"{path} does not agree with its own checksum: it was edited or damaged"
    assert "start anew" in hint


def test_a_run_whose_labels_are_gone(run):
    for path in (run / "labels").iterdir():
        path.unlink()
    assert refused(RunError, labels=str(run)) == (
        f"{run / 'labels'} holds no labels",
        "label the data set again, with another --name",
    )


def test_a_data_set_that_is_gone(run, elsewhere):
    shutil.rmtree(elsewhere)
    assert refused(RunError, labels=str(run)) == (
        f"the data set of {run} is no longer at {elsewhere}",
        "put it back, or label it again where it is now",
    )


@pytest.mark.parametrize(("listed", "count"), [(TRAIN[:5], 5), (reversed(TRAIN), 6), ((*TRAIN, VAL[0]), 7)])
def test_other_pictures_than_were_labelled(run, elsewhere, listed, count):
    (elsewhere / "ImageSets/Segmentation/train.txt").write_text("".join(f"{name}\n" for name in listed))
    assert refused(RunError, labels=str(run)) == (
        f"{run} labels 6 images, and {elsewhere} now lists others ({count})",
        "label the data set again, with another --name",
    )


@pytest.mark.parametrize(
    ("now", "count", "said"),
    [
        (("cat", "fox", "couch, sofa"), 3, "dog is not the same in both"),
        (("cat", "dog"), 2, "couch is not the same in both"),
        (("fox", "cow", "couch, sofa"), 3, "cat, dog are not the same in both"),
        (("cat", "dog", "couch, sofa", "fox"), 4, "cat, dog, couch are not the same in both"),
        (("dog", "cat", "couch, sofa"), 3, "cat, dog, couch are not the same in both"),
        (("cat", "dog", "couch, settee"), 3, "couch is not the same in both"),
    ],
)
def test_other_classes_than_were_labelled(tiny_clip, tmp_path, now, count, said):
    """Other names, another order, or other words of the same name."""
    data = make_folder(tmp_path / "data", masks=False)
    made = label(tiny_clip, data, tmp_path)
    assert task(labels=str(made)).classes.names == ("cat", "dog", "couch")
    (data / "classes.txt").write_text("\n".join(now))
    message, hint = refused(RunError, labels=str(made))
    assert message == f"{made} labels 3 classes and {data} has {count}: {said}"
    assert hint == "label the data set again"


def test_templates_that_changed_since(tree, tiny_clip, tmp_path):
    words = tmp_path / "templates.txt"
    words.write_text("a photo of a {}.\n")
    made = label(tiny_clip, tree, tmp_path, templates=str(words))
    assert task(labels=str(made)).templates == ("a photo of a {}.",)
    words.write_text("a drawing of a {}.\n")
    assert refused(RunError, labels=str(made)) == (
        f"the templates of {made} ({words}) have changed since",
        "put the file back, or label the data set again",
    )


def test_a_run_with_ground_truth_is_not_annotation_free(seen_run):
    said = f"{seen_run} keeps the ground truth of seen classes, so learning from it is not annotation-free"
    hint = "add --setting zero-shot, or label without --keep-labels seen"
    assert refused(RunError, labels=str(seen_run)) == (said, hint)


def test_a_run_without_ground_truth_is_not_zero_shot(label_run):
    message, hint = refused(RunError, labels=str(label_run), setting="zero-shot")
    assert message == f"{label_run} holds no ground truth of seen classes"
    assert "--keep-labels seen --unseen NAMES" in hint and "--teacher --dataset ROOT" in hint


def test_unseen_classes_are_those_of_the_run(seen_run):
    message, hint = refused(RunError, labels=str(seen_run), setting="zero-shot", unseen="sheep")
    assert (message, hint) == (
        f"{seen_run} was made with the unseen classes sheep, tvmonitor",
        "leave out --unseen",
    )
    same = task(labels=str(seen_run), setting="zero-shot", unseen="tvmonitor,sheep")
    assert same.unseen == UNSEEN


@pytest.mark.parametrize(
    ("option", "value", "own"),
    [
        ("model", "RN50", "tiny-vit"),
        ("benchmark", "voc20", "voc21"),
        ("split", "val", "train"),
        ("templates", "imagenet", "single"),
        ("method", "vanilla", "maskclip"),
        ("prompt_denoising", 0.5, "0.0"),
        ("classes", "cat,dog", "not given"),
    ],
)
def test_options_that_a_run_was_not_made_with(label_run, option, value, own):
    """Never taken and never dropped in silence."""
    message, hint = refused(UsageError, labels=str(label_run), **{option: value})
    name = "--" + option.replace("_", "-")
    assert message == f"{name} {value} does not fit {label_run}, made with {own}"
    assert hint == f"leave out {name}: the labels bring their own"


def test_options_that_a_run_was_made_with_may_be_repeated(label_run, tiny_clip):
    same = {"model": tiny_clip.name, "pretrained": str(tiny_clip.weights), "templates": "single"}
    assert task(labels=str(label_run), **same, benchmark="voc21", split="train").run == label_run


# Options that exclude each other


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (
            {"setting": "supervised", "labels": "RUN"},
            "--setting supervised learns from the ground truth and from no labels of a model",
            "leave out --labels and --teacher",
        ),
        (
            {"setting": "supervised", "teacher": True, "dataset": "DATA"},
            "--setting supervised learns from the ground truth and from no labels of a model",
            "leave out --labels and --teacher",
        ),
        (
            {"labels": "RUN", "teacher": True},
            "--labels and --teacher both say who labels",
            "--labels RUN reads what was written, --teacher labels each crop anew",
        ),
        (
            {"targets": "features", "labels": "RUN"},
            "a run holds labels and no features",
            "add --teacher to --targets features",
        ),
        (
            {"unseen": "sheep", "labels": "RUN"},
            "--unseen says which classes have no ground truth, but none is used",
            "add --setting zero-shot",
        ),
        (
            {"teacher": True},
            "nothing says which images to learn from",
            "name a data set with --dataset ROOT",
        ),
        (
            {"labels": "RUN", "dataset": "DATA"},
            "--labels brings its own data set",
            "leave out --dataset or --labels",
        ),
    ],
)
def test_options_that_exclude_each_other(options, message, hint):
    """Said before anything is looked for: neither the run nor the data set is there."""
    assert refused(UsageError, **options) == (message, hint)


@pytest.mark.parametrize(
    ("options", "other"),
    [
        ({}, "--setting supervised to learn from the ground truth"),
        ({"guided": 0}, "--setting supervised to learn from the ground truth"),
        (
            {"setting": "zero-shot", "unseen": "sheep"},
            "--guided 0 to learn from seen classes and the student itself",
        ),
    ],
)
def test_a_data_set_alone_says_not_who_labels(tree, options, other):
    message, hint = refused(UsageError, dataset=str(tree), **options)
    assert message == "nothing says who labels the images"
    assert hint == f"add --teacher, or {other}"


def test_seen_classes_and_the_student_itself_need_no_teacher(tree):
    found = task(dataset=str(tree), setting="zero-shot", unseen="sheep", guided=0)
    assert found.unlabelled == (SHEEP,) and found.teacher is None


@pytest.mark.parametrize(("benchmark", "preset"), [("voc20", ", or --unseen preset"), ("voc21", "")])
def test_zero_shot_without_unseen_classes(tree, tiny_clip, benchmark, preset):
    options = teacher_options(tiny_clip, tree) | {"setting": "zero-shot", "benchmark": benchmark}
    message, hint = refused(UsageError, **options)
    assert message == "--setting zero-shot needs to know which classes are unseen"
    assert hint == f"name them, as in --unseen sofa,train{preset}"


def test_a_misspelt_unseen_class(tree, tiny_clip):
    options = teacher_options(tiny_clip, tree) | {"setting": "zero-shot", "unseen": "shep"}
    said = "unseen class 'shep' is not a class of voc21"
    assert refused(UsageError, **options) == (said, "did you mean 'sheep'?")


@pytest.mark.parametrize("setting", ["supervised", "zero-shot"])
def test_ground_truth_that_is_missing(elsewhere, tiny_clip, setting):
    for name in TRAIN:
        truth_path(elsewhere, name).unlink()
    options = teacher_options(tiny_clip, elsewhere) | {"unseen": UNSEEN_NAMES, "setting": setting}
    if setting == "supervised":
        options = {"dataset": str(elsewhere), "setting": setting}
    message, _ = refused(DatasetError, **options)
    assert message.startswith(f"{elsewhere} looks like PASCAL VOC 2012 without SegmentationClass/*.png")


def test_an_unknown_backbone_is_refused_with_the_nearest(label_run):
    config = short_config(backbone="resnet1O1c")
    numbers = resolve_hyperparameters(config, "voc21")
    with pytest.raises(UsageError, match="resnet1O1c") as caught:
        build_student(task(labels=str(label_run), backbone="resnet1O1c"), numbers, torch.eye(31))
    assert "'resnet101c'" in caught.value.hint


# Pictures with what is known of them


def pictures(found):
    """All pictures of a task, by name: given and proposed labels."""
    source = TrainingImages(found)
    return {source.samples[i].source.relative.stem: source(i)[1:] for i in range(len(source))}


def test_labels_of_a_run_are_proposed_and_none_given(label_run):
    for name, (given, proposed) in pictures(task(labels=str(label_run))).items():
        with Image.open(label_run / "labels" / f"{name}.png") as image:
            assert np.array_equal(proposed, np.asarray(image))
        assert (given == UNLABELLED).all()


def test_seen_ground_truth_is_given_and_unseen_unlabelled(seen_run, tree, tiny_clip):
    zero_shot = {"setting": "zero-shot", "unseen": UNSEEN_NAMES}
    from_run = pictures(task(labels=str(seen_run), setting="zero-shot"))
    from_truth = pictures(task(**teacher_options(tiny_clip, tree), **zero_shot))
    for name in TRAIN:
        truth = read_truth(tree, name).astype(np.int32)
        expected = np.where(np.isin(truth, UNSEEN), UNLABELLED, truth)
        assert set(np.unique(expected)) == {UNLABELLED, BACKGROUND, DOG, IGNORE}
        for given in (from_run[name][0], from_truth[name][0]):
            assert np.array_equal(given, expected)
        assert from_truth[name][1] is None
        assert set(np.unique(from_run[name][1][expected == UNLABELLED])) <= set(UNSEEN)


def test_all_ground_truth_is_given_under_supervision(tree):
    for name, (given, proposed) in pictures(task(dataset=str(tree), setting="supervised")).items():
        assert np.array_equal(given, read_truth(tree, name)) and proposed is None
        assert {SHEEP, TV} <= set(np.unique(given))


def test_labels_of_16_bits(tiny_clip, tmp_path):
    """Class 255 is a class there, and 65535 is ignored."""
    data = make_folder(tmp_path / "data", names=("a",), classes=[f"c{i}" for i in range(300)])
    save_label(data / "masks" / "a.png", (0, 255, 299, 65_535), mode="I;16")
    ((given, _),) = pictures(task(dataset=str(data), setting="supervised")).values()
    assert set(np.unique(given)) == {0, 255, 299, 65_535}
    made = label(tiny_clip, data, tmp_path, min_confidence=1.0)
    ((given, proposed),) = pictures(task(labels=str(made))).values()
    assert (given == UNLABELLED).all() and (proposed == 65_535).all()


def test_a_label_that_is_no_class_of_the_run(run, elsewhere):
    Image.fromarray(np.full(SIZE, 21, np.uint8)).save(run / "labels" / f"{TRAIN[0]}.png")
    with pytest.raises(RunError, match="holds 21, which is no class of the run") as caught:
        pictures(task(labels=str(run)))
    assert caught.value.hint == "label it again: clipseg pseudolabel, with another --name"


def test_a_picture_without_label_is_said_and_the_others_are_learnt(run):
    (run / "labels" / f"{TRAIN[1]}.png").unlink()
    found = task(labels=str(run))
    assert [s.source.relative.stem for s in found.samples] == [n for n in TRAIN if n != TRAIN[1]]
    assert found.notes == (f"1 image has no label in {run} and cannot be learnt from",)
    (run / "labels" / f"{TRAIN[2]}.png").unlink()
    assert task(labels=str(run)).notes == (f"2 images have no label in {run} and cannot be learnt from",)


def test_labels_of_another_size_leave_their_picture_out_and_name_it(run, teach):
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(run / "labels" / f"{TRAIN[3]}.png")
    done = teach(labels=str(run))
    ((name, said),) = done.run.failures.items()
    assert name == TRAIN[3] and "5x5" in said and "64x48" in said
    manifest = json.loads((done.folder / "manifest.json").read_text())
    assert manifest["complete"] and list(manifest["result"]["failures"]) == [name]
    assert len(done.steps) == 4


def test_pictures_that_changed_their_size_since_they_were_labelled(run, elsewhere, teach):
    """No picture is left, and that is an error."""
    for seed, name in enumerate(TRAIN):
        save_image(elsewhere / "JPEGImages" / f"{name}.jpg", size=(20, 20), seed=seed)
    with pytest.raises(RunError, match="none of 6 images can be read"):
        teach(labels=str(run))
