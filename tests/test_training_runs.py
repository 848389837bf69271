"""Runs that cannot be learnt from: unfinished, edited, of other images or other classes."""

from __future__ import annotations

import shutil

import pytest
from dataset_trees import make_folder
from training_runs import (  # noqa: F401
    elsewhere_fixture,
    refused,
    run_fixture,
    task,
)
from training_trees import (  # noqa: F401
    TRAIN,
    UNSEEN,
    VAL,
    finished_training,
    free_run,
    label,
    session_tree,
    zero_shot_run,
)

from clipseg_cli.errors import RunError, UsageError
from clipseg_cli.runs.manifest import Manifest, read_manifest, write_manifest

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
        "the clipseg pseudolabel command that made it takes up what has changed",
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
