"""What nobody may know: ground truth of unseen classes, and all of it where there is no annotation."""

from __future__ import annotations

import pytest
import torch
from small_backbone import small  # noqa: F401
from training_trees import (  # noqa: F401
    BACKGROUND,
    DOG,
    SHEEP,
    TRAIN,
    TV,
    UNSEEN_NAMES,
    copy_run,
    copy_tree,
    free_run,
    label,
    read_truth,
    session_tree,
    short_training,
    teacher_options,
    truth_path,
    write_truth,
    zero_shot_run,
)

from clipseg_cli.config import UNLABELLED
from clipseg_cli.training.targets import GUIDED, SELF, Targets

IGNORE = 255


def swap_unseen(root):
    """Every sheep becomes a tvmonitor in the ground truth to train on, and the other way round."""
    for name in TRAIN:
        truth = read_truth(root, name)
        changed = truth.copy()
        changed[truth == SHEEP], changed[truth == TV] = TV, SHEEP
        assert (changed != truth).any()
        write_truth(root, name, changed)


def remove_truth(root):
    """No ground truth of any picture to train on."""
    for name in TRAIN:
        truth_path(root, name).unlink()


@pytest.fixture
def elsewhere(tree, tmp_path):
    """A copy of the data set whose ground truth may be changed."""
    return copy_tree(tree, tmp_path / "voc")


@pytest.fixture
def reached(monkeypatch):
    """The given labels of every batch that reached the targets."""
    found, call = [], Targets.__call__

    def watch(self, batch, logits, iteration):
        found.append(batch.given)
        return call(self, batch, logits, iteration)

    monkeypatch.setattr(Targets, "__call__", watch)
    return found


def hides_the_unseen(reached):
    """Nothing but seen classes, unlabelled and ignored pixels, and all of these."""
    found = set(torch.cat(reached).unique().tolist())
    return {BACKGROUND, DOG, UNLABELLED} <= found <= {BACKGROUND, DOG, UNLABELLED, IGNORE}


def test_ground_truth_of_unseen_classes_changes_no_bit_with_a_teacher(teach, tiny_clip, elsewhere, reached):
    """While a change of what is seen does, which shows that the comparison has teeth."""
    options = teacher_options(tiny_clip, elsewhere) | {"setting": "zero-shot", "unseen": UNSEEN_NAMES}
    options["backbone"] = "small"
    first = teach(**options)
    assert [step.stage for step in first.steps] == [GUIDED] * 2 + [SELF] * 2
    assert len(reached) == 4 and hides_the_unseen(reached)
    swap_unseen(elsewhere)
    assert teach(**options).equals(first)
    for name in TRAIN:
        truth = read_truth(elsewhere, name)
        write_truth(elsewhere, name, truth * (truth != DOG))
    assert not teach(**options).equals(first)


def test_ground_truth_of_unseen_classes_changes_no_bit_with_a_run(
    teach, tiny_clip, seen_run, elsewhere, tmp_path, reached
):
    """Neither the labels that a run writes, nor what is learnt from them."""
    first = teach(labels=str(seen_run), setting="zero-shot", backbone="small")
    assert len(reached) == 4 and hides_the_unseen(reached)
    swap_unseen(elsewhere)
    run = label(tiny_clip, elsewhere, tmp_path / "again", keep_labels="seen", unseen=UNSEEN_NAMES)
    for name in TRAIN:
        written = [(folder / "labels" / f"{name}.png").read_bytes() for folder in (seen_run, run)]
        assert written[0] == written[1]
    assert teach(labels=str(run), setting="zero-shot", backbone="small").equals(first)


def test_without_annotation_no_ground_truth_is_opened_with_a_run(teach, label_run, elsewhere, tmp_path):
    """Nor any needed: the same to the last bit when it is gone."""
    first = teach(labels=str(label_run), backbone="small")
    remove_truth(elsewhere)
    run = copy_run(label_run, tmp_path / "run", elsewhere)
    assert teach(labels=str(run), backbone="small").equals(first)


def test_without_annotation_no_ground_truth_is_opened_with_a_teacher(
    teach, tiny_clip, tree, elsewhere, reached
):
    first = teach(**teacher_options(tiny_clip, tree), backbone="small")
    assert set(torch.cat(reached).unique().tolist()) <= {UNLABELLED, IGNORE}
    remove_truth(elsewhere)
    assert teach(**teacher_options(tiny_clip, elsewhere), backbone="small").equals(first)
