"""What a student is trained by: cross-entropy with ignored pixels counting as zero, distance of features."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from clipseg_cli.errors import ShapeError
from clipseg_cli.ops.losses import feature_loss, segmentation_loss

IGNORE = 255


@pytest.fixture
def numbers():
    """Logits [4, 3, 3, 5], labels [4, 12, 20] with a fifth of the pixels ignored."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (4, 12, 20), generator=generator, dtype=torch.int32)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = IGNORE
    return torch.randn(4, 3, 3, 5, generator=generator), labels


def test_it_is_the_negative_log_probability_of_the_label():
    logits = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(1, 2, 1, 2)  # two classes at two pixels
    by_hand = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert segmentation_loss(logits, torch.zeros(1, 1, 2), IGNORE).item() == pytest.approx(by_hand)


def test_ignored_pixels_count_as_zero(numbers):
    logits, labels = numbers
    full = F.interpolate(logits, (12, 20), mode="bilinear", align_corners=False)
    each = F.cross_entropy(full, labels.long(), ignore_index=IGNORE, reduction="none")  # [B, H, W]
    assert (each[labels == IGNORE] == 0).all() and (each[labels != IGNORE] > 0).all()
    torch.testing.assert_close(segmentation_loss(logits, labels, IGNORE), each.mean())


@pytest.mark.parametrize("ignore", [255, 65_535])
def test_the_value_of_ignored_pixels_changes_nothing(numbers, ignore):
    logits, labels = numbers
    expected = segmentation_loss(logits, labels, IGNORE)
    assert segmentation_loss(logits, labels.where(labels != IGNORE, ignore), ignore).equal(expected)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_average_to_the_batch(numbers, parts):
    """Whatever the share of labelled pixels in each: so accumulation and several ranks change nothing."""
    logits, labels = numbers
    labels[0] = IGNORE
    whole = torch.nn.Parameter(logits.clone())
    segmentation_loss(whole, labels, IGNORE).backward()
    cut = torch.nn.Parameter(logits.clone())
    pieces = [
        segmentation_loss(some, ids, IGNORE) / parts
        for some, ids in zip(cut.chunk(parts), labels.chunk(parts), strict=True)
    ]
    sum(pieces).backward()
    torch.testing.assert_close(sum(pieces), segmentation_loss(logits, labels, IGNORE))
    torch.testing.assert_close(cut.grad, whole.grad)


def test_without_any_label_loss_and_gradient_are_zero(numbers):
    logits = torch.nn.Parameter(numbers[0])
    loss = segmentation_loss(logits, torch.full((4, 12, 20), IGNORE), IGNORE)
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_ignored_pixels_have_no_gradient():
    logits = torch.nn.Parameter(torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)))
    labels = torch.ones(1, 6, 6, dtype=torch.int32)
    labels[0, 2:] = IGNORE
    segmentation_loss(logits, labels, IGNORE).backward()
    assert (logits.grad[0, :, 2:] == 0).all() and (logits.grad[0, :, :2] != 0).all()


def test_half_precision_is_summed_in_float32(numbers):
    logits, labels = numbers
    found = segmentation_loss(logits.bfloat16(), labels, IGNORE)
    assert found.dtype == torch.float32
    assert found.equal(segmentation_loss(logits.bfloat16().float(), labels, IGNORE))


def test_another_number_of_pictures_is_refused(numbers):
    logits, labels = numbers
    with pytest.raises(ShapeError, match="4 maps of logits for 3 maps of labels"):
        segmentation_loss(logits, labels[:3], IGNORE)


# Features


def test_the_distance_is_to_features_of_unit_length():
    """(3, 4) has the direction (0.6, 0.8); the other pixel is not in the mask."""
    student = torch.tensor([[0.5, 9.0], [1.0, 9.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([[3.0, 1.0], [4.0, 0.0]]).view(1, 2, 1, 2)
    mask = torch.tensor([[[True, False]]])
    assert feature_loss(student, teacher, mask).item() == pytest.approx((0.1 + 0.2) / 2)
    assert feature_loss(student, teacher * 7, mask).item() == pytest.approx(0.15)
    assert feature_loss(student * 2, teacher, mask).item() == pytest.approx((0.4 + 1.2) / 2)


def test_both_are_brought_to_the_size_of_the_mask(numbers):
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(2, 8, 6, 6, generator=generator)
    teacher = torch.randn(2, 8, 3, 3, generator=generator)
    mask = torch.rand(2, 12, 12, generator=generator) < 0.5
    ours, theirs = (
        F.interpolate(x, (12, 12), mode="bilinear", align_corners=False)
        for x in (student, teacher / teacher.norm(dim=1, keepdim=True))
    )
    expected = (ours - theirs).abs().transpose(0, 1)[:, mask].mean()
    torch.testing.assert_close(feature_loss(student, teacher, mask), expected)


def test_an_empty_mask_gives_zero_without_gradient():
    student = torch.nn.Parameter(torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0)))
    loss = feature_loss(student, torch.randn(1, 4, 2, 2), torch.zeros(1, 6, 6, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and (student.grad == 0).all()


def test_features_of_another_width_are_refused():
    with pytest.raises(ShapeError, match="the student has 8 channels, the teacher 4"):
        feature_loss(torch.zeros(1, 8, 2, 2), torch.zeros(1, 4, 2, 2), torch.ones(1, 2, 2))
