"""Who labels the pixels that nobody labelled: the teacher as published, then the student."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from golden_cases import CASES, compare
from small_backbone import small  # noqa: F401

from clipseg_cli.config import UNLABELLED, InferenceConfig, TrainConfig
from clipseg_cli.inference.predictor import Predictor
from clipseg_cli.methods import METHODS
from clipseg_cli.models.clip.backbones import Backbone
from clipseg_cli.ops.pseudo import leaked_classes
from clipseg_cli.training.batches import Batch
from clipseg_cli.training.hyperparameters import resolve_hyperparameters
from clipseg_cli.training.targets import BOTH, GUIDED, SELF, TRUTH, Targets, Teacher
from clipseg_cli.types import ClassList

IGNORE = 255
GOLDEN = [name for name, case in CASES.items() if case.method == "maskclip_plus_pseudo_label"]


def golden_teacher(case, text, class_ids):
    """A teacher with the random tower of a case, which gives the classes of these ids."""
    backbone = Backbone(
        model=SimpleNamespace(visual=case.tower()),
        tokenizer=lambda words: pytest.fail("the words are given"),
        name="golden",
        pretrained="random",
        fingerprint="",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        image_size=64,
        short_side=64,
        logit_scale=100.0,
    )
    names = tuple(f"class {i}" for i in class_ids)
    config = InferenceConfig(
        protocol="maskclip",
        window=0,
        prompt_denoising=case.options["pd_thresh"],
        key_smoothing=case.options["ks_thresh"],
    )
    predictor = Predictor(
        backbone,
        METHODS.get("maskclip"),
        ClassList(names, tuple((name,) for name in names)),
        text[class_ids],
        config,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    return Teacher(predictor, class_ids)


@pytest.fixture(params=GOLDEN)
def golden(request):
    """Case, its teacher, images [1, 3, 96, 96] as they were before normalisation, labels and expected labels."""
    case = CASES[request.param]
    given, expected = case.load()
    teacher = golden_teacher(case, given["text"], given["unlabelled_classes"].tolist())
    images = given["image"] * teacher.predictor.std + teacher.predictor.mean
    return case, teacher, images, given["gt"][:, 0].int(), expected["labels"]


@pytest.fixture
def read(monkeypatch):
    """How many crops each call of a teacher's network was given."""

    def watch(teacher):
        seen, reader = [], teacher.predictor.reader

        class Watched:
            def __call__(self, images, regions=None):
                seen.append(len(images))
                return reader(images, regions)

            def __getattr__(self, name):
                return getattr(reader, name)

        monkeypatch.setattr(teacher.predictor, "reader", Watched())
        return seen

    return watch


# The teacher


def test_the_golden_cases_are_with_and_without_refinements():
    refined = {bool(CASES[name].options["pd_thresh"]) for name in GOLDEN}
    assert refined == {True, False} or "CLIPSEG_GOLDEN_DIR" in os.environ


def test_the_teacher_fills_as_the_published_code(golden):
    case, teacher, images, labels, expected = golden
    filled = teacher.fill(images, labels)
    assert (labels == UNLABELLED).any() and filled.dtype == torch.int32
    compare(f"{case.name}: filled", filled, expected, case.tensors["out.labels"])


def test_the_teacher_changes_no_given_label_and_not_its_input(golden):
    _, teacher, images, labels, _ = golden
    before, known = labels.clone(), labels != UNLABELLED
    filled = teacher.fill(images, labels)
    assert labels.equal(before)
    assert filled[known].equal(labels[known])
    assert set(filled[~known].tolist()) <= set(teacher._ids.tolist())


def test_a_crop_without_unlabelled_pixels_is_not_read(golden, read):
    _, teacher, images, labels, expected = golden
    full = labels.where(labels != UNLABELLED, IGNORE)
    seen = read(teacher)
    filled = teacher.fill(images.expand(3, -1, -1, -1), torch.cat([full, labels, full]))
    assert seen == [1]
    assert filled[[0, 2]].equal(torch.cat([full, full]))
    assert (filled[1] == expected[0, 0]).float().mean() > 0.999
    assert teacher.fill(images, full).equal(full) and seen == [1]


# The stages


def settings(**options):
    return resolve_hyperparameters(
        TrainConfig(
            iterations=10, **{"setting": "zero-shot", "guided": 3, "self_training_from": 6, **options}
        ),
        None,
    )


def crops(given, proposed=None):
    """A batch of black crops with these labels."""
    given = torch.tensor(given, dtype=torch.int32)
    proposed = None if proposed is None else torch.tensor(proposed, dtype=torch.int32)
    return Batch(torch.zeros(len(given), 3, *given.shape[1:], dtype=torch.uint8), given, proposed)


class Marking:
    """A teacher that gives every unlabelled pixel one class."""

    def __init__(self, class_id):
        self.class_id = class_id

    def fill(self, images, labels):
        return labels.where(labels != UNLABELLED, torch.tensor(self.class_id, dtype=torch.int32))


MIXED = [[[0, 1, UNLABELLED], [UNLABELLED, 1, IGNORE]]]  # classes 0 and 1 are seen, 2 and 3 are not
SAYS = torch.tensor([9.0, 8.0, 0.0, 1.0]).view(1, 4, 1, 1).expand(1, 4, 2, 3)
"""A student that would say 0, and 3 among the unseen."""


def test_a_teacher_then_nobody_then_the_student_itself():
    targets = Targets(settings(), (2, 3), Marking(2), IGNORE)
    assert [targets.stage(i) for i in range(10)] == [GUIDED] * 3 + [TRUTH] * 3 + [SELF] * 4
    for iteration, filled in ((0, 2), (2, 2), (3, IGNORE), (5, IGNORE), (6, 3), (9, 3)):
        (labels,) = targets(crops(MIXED), SAYS, iteration)
        assert labels.tolist() == [[[0, 1, filled], [filled, 1, IGNORE]]]
        assert labels.dtype == torch.int32


@pytest.mark.parametrize(
    ("guided", "self_training_from", "stages"),
    [
        (4, None, [GUIDED] * 4 + [SELF] * 6),
        (10, None, [GUIDED] * 10),
        (0, None, [SELF] * 10),
        (0, 4, [TRUTH] * 4 + [SELF] * 6),
        (4, 10, [GUIDED] * 4 + [TRUTH] * 6),
        (10, 4, [GUIDED] * 4 + [BOTH] * 6),
        (6, 2, [GUIDED] * 2 + [BOTH] * 4 + [SELF] * 4),
    ],
)
def test_each_stage_can_be_left_out(guided, self_training_from, stages):
    targets = Targets(settings(guided=guided, self_training_from=self_training_from), (2, 3), None, IGNORE)
    assert [targets.stage(i) for i in range(10)] == stages


def test_with_all_labels_given_there_is_one_stage():
    targets = Targets(settings(setting="supervised"), (), Marking(2), IGNORE)
    assert {targets.stage(i) for i in range(10)} == {TRUTH}
    (labels,) = targets(crops([[[0, 3, IGNORE]]]), SAYS, 0)
    assert labels.tolist() == [[[0, 3, IGNORE]]]


def test_a_run_s_labels_are_taken_where_none_are_given():
    """And there alone: what a run says of other pixels, even another class, changes nothing."""
    targets = Targets(settings(), (2, 3), Marking(3), IGNORE)
    batch = crops(MIXED, [[[2, 2, 2], [IGNORE, 2, 2]]])
    guided, own = [[[0, 1, 2], [IGNORE, 1, IGNORE]]], [[[0, 1, 3], [3, 1, IGNORE]]]
    assert [one.tolist() for one in targets(batch, SAYS, 0)] == [guided]
    assert [one.tolist() for one in targets(batch, SAYS, 6)] == [own]
    both = Targets(settings(guided=10, self_training_from=5), (2, 3), None, IGNORE)
    assert [one.tolist() for one in both(batch, SAYS, 6)] == [guided, own]


def test_nobody_guides_without_teacher_and_run():
    targets = Targets(settings(), (2, 3), None, IGNORE)
    (labels,) = targets(crops(MIXED), SAYS, 0)
    assert labels.tolist() == [[[0, 1, IGNORE], [IGNORE, 1, IGNORE]]]


def test_the_student_labels_by_its_upsampled_scores():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 3, 4, generator=generator)
    given = torch.full((2, 12, 16), UNLABELLED).tolist()
    (found,) = Targets(settings(guided=0, self_training_from=0), range(6), None, IGNORE)(
        crops(given), logits, 0
    )
    full = F.interpolate(logits, (12, 16), mode="bilinear", align_corners=False)
    assert found.equal(full.argmax(dim=1).int())


def test_the_student_gives_only_unlabelled_classes():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 3, 4, generator=generator)
    logits[:, [0, 2, 4]] += 100
    given = torch.full((2, 12, 16), UNLABELLED).tolist()
    (found,) = Targets(settings(guided=0, self_training_from=0), (1, 3, 5), None, IGNORE)(
        crops(given), logits, 0
    )
    assert set(found.unique().tolist()) == {1, 3, 5}


def test_no_gradient_goes_through_the_labels_of_the_student():
    logits = SAYS.clone().requires_grad_()
    (labels,) = Targets(settings(), (2, 3), None, IGNORE)(crops(MIXED), logits, 9)
    assert not labels.requires_grad


# What nobody may know


def test_ground_truth_of_an_unlabelled_class_is_counted_and_named():
    targets = Targets(settings(), (2, 3), None, IGNORE)
    leaking = crops([[[0, 1, UNLABELLED], [3, 2, IGNORE]], [[3, 1, UNLABELLED], [0, 1, 1]]]).given
    assert targets.leaked(leaking) == 3 and targets.leaked(crops(MIXED).given) == 0
    assert "ground truth of classes [2, 3], which nobody may know" in str(targets.leak(leaking))


def test_leaked_classes_are_named_once_and_in_order():
    labels = torch.tensor([[5, 2, 2, UNLABELLED], [0, 9, 5, IGNORE]], dtype=torch.int32)
    assert leaked_classes(labels, (9, 5, 2, 7)) == [2, 5, 9]
    assert leaked_classes(labels, (1, 7)) == []
    assert leaked_classes(labels, ()) == []
