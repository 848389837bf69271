"""What a student learns, and images with what is known of them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from dataset_trees import make_folder, save_image, save_label
from PIL import Image
from training_runs import (  # noqa: F401
    elsewhere_fixture,
    run_fixture,
    task,
)
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
    free_run,
    label,
    read_truth,
    session_tree,
    short_training,
    teacher_options,
    zero_shot_run,
)

from clipseg_cli.config import UNLABELLED
from clipseg_cli.errors import RunError
from clipseg_cli.training.samples import TrainingImages

IGNORE = 255


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


# Pictures with what is known of them


def labels_by_name(found):
    """All pictures of a task, by name: given and proposed labels."""
    source = TrainingImages(found)
    return {source.samples[i].source.relative.stem: source(i)[1:] for i in range(len(source))}


def test_labels_of_a_run_are_proposed_and_none_given(label_run):
    for name, (given, proposed) in labels_by_name(task(labels=str(label_run))).items():
        with Image.open(label_run / "labels" / f"{name}.png") as image:
            assert np.array_equal(proposed, np.asarray(image))
        assert (given == UNLABELLED).all()


def test_seen_ground_truth_is_given_and_unseen_unlabelled(seen_run, tree, tiny_clip):
    zero_shot = {"setting": "zero-shot", "unseen": UNSEEN_NAMES}
    from_run = labels_by_name(task(labels=str(seen_run), setting="zero-shot"))
    from_truth = labels_by_name(task(**teacher_options(tiny_clip, tree), **zero_shot))
    for name in TRAIN:
        truth = read_truth(tree, name).astype(np.int32)
        expected = np.where(np.isin(truth, UNSEEN), UNLABELLED, truth)
        assert set(np.unique(expected)) == {UNLABELLED, BACKGROUND, DOG, IGNORE}
        for given in (from_run[name][0], from_truth[name][0]):
            assert np.array_equal(given, expected)
        assert from_truth[name][1] is None
        assert set(np.unique(from_run[name][1][expected == UNLABELLED])) <= set(UNSEEN)


def test_all_ground_truth_is_given_under_supervision(tree):
    for name, (given, proposed) in labels_by_name(task(dataset=str(tree), setting="supervised")).items():
        assert np.array_equal(given, read_truth(tree, name)) and proposed is None
        assert {SHEEP, TV} <= set(np.unique(given))


def test_labels_of_16_bits(tiny_clip, tmp_path):
    """Class 255 is a class there, and 65535 is ignored."""
    data = make_folder(tmp_path / "data", names=("a",), classes=[f"c{i}" for i in range(300)])
    save_label(data / "masks" / "a.png", (0, 255, 299, 65_535), mode="I;16")
    ((given, _),) = labels_by_name(task(dataset=str(data), setting="supervised")).values()
    assert set(np.unique(given)) == {0, 255, 299, 65_535}
    made = label(tiny_clip, data, tmp_path, min_confidence=1.0)
    ((given, proposed),) = labels_by_name(task(labels=str(made))).values()
    assert (given == UNLABELLED).all() and (proposed == 65_535).all()


def test_a_label_that_is_no_class_of_the_run(run, elsewhere):
    Image.fromarray(np.full(SIZE, 21, np.uint8)).save(run / "labels" / f"{TRAIN[0]}.png")
    with pytest.raises(RunError, match="holds 21, which is no class of the run") as caught:
        labels_by_name(task(labels=str(run)))
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
