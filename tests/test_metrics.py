"""Scores are exact: they equal a count pixel by pixel, add up, and never see an ignored pixel."""

from __future__ import annotations

import math

import pytest
import torch

from clipseg_cli.errors import ShapeError
from clipseg_cli.ops.metrics import confusion_matrix, harmonic_mean, score

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def maps(seed: int, classes: int = 5, size: tuple[int, int] = (23, 31)) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction with some "no class" on either side of the range, and labels with some to ignore."""
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randint(-2, classes + 3, size, generator=generator)
    label = torch.randint(-2, classes, size, generator=generator)
    agree = torch.rand(size, generator=generator) < 0.5
    return torch.where(agree & (label >= 0), label, pred), label


def count_slowly(pred: torch.Tensor, label: torch.Tensor, classes: int) -> list[list[int]]:
    table = [[0] * (classes + 1) for _ in range(classes)]
    for found, truth in zip(pred.flatten().tolist(), label.flatten().tolist(), strict=True):
        if truth >= 0:
            table[truth][found if 0 <= found < classes else classes] += 1
    return table


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


# --- counting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_equals_a_count_pixel_by_pixel(seed):
    classes = 1 + seed % 7
    pred, label = maps(seed, classes, (1 + seed, 40 - seed))
    table = confusion_matrix(pred, label, classes)
    assert table.dtype == torch.int64
    assert table.tolist() == count_slowly(pred, label, classes)


@pytest.mark.parametrize("seed", range(10))
def test_scores_equal_sets_of_pixels(seed):
    """The definitions over sets, one class at a time, without a confusion matrix."""
    pred, label = maps(seed, 6)
    found = score(confusion_matrix(pred, label, 6))
    pred = pred[label >= 0]
    label = label[label >= 0]
    for c in range(6):
        right = int(((pred == c) & (label == c)).sum())
        either = int(((pred == c) | (label == c)).sum())
        assert float(found.iou[c]) == right / either
        assert float(found.accuracy[c]) == right / int((label == c).sum())
        assert float(found.precision[c]) == right / int((pred == c).sum())
        assert float(found.dice[c]) == pytest.approx(2 * right / (either + right), rel=1e-15)
        assert float(found.fscore[c]) == pytest.approx(float(found.dice[c]), rel=1e-12)
    assert found.pixel_accuracy == int((pred == label).sum()) / label.numel()
    assert found.miou == pytest.approx(float(found.iou.mean()), rel=1e-15)
    assert found.mean_accuracy == pytest.approx(float(found.accuracy.mean()), rel=1e-15)


def test_pictures_add_up():
    pairs = [maps(seed, size=(10, 12)) for seed in range(4)]
    one_by_one = sum(confusion_matrix(pred, label, 5) for pred, label in pairs)
    together = confusion_matrix(torch.cat([p for p, _ in pairs]), torch.cat([x for _, x in pairs]), 5)
    assert torch.equal(one_by_one, together)


def test_ignored_pixels_never_count():
    pred, label = maps(3)
    other = pred.clone()
    other[label < 0] = (other[label < 0] + 1) % 5
    assert not torch.equal(other, pred)
    assert torch.equal(confusion_matrix(pred, label, 5), confusion_matrix(other, label, 5))


def test_no_class_is_wrong_but_belongs_to_no_prediction():
    label = torch.tensor([[0, 0, 1, 1]])
    pred = torch.tensor([[0, 255, 1, -1]])
    table = confusion_matrix(pred, label, 2)
    assert table.tolist() == [[1, 0, 1], [0, 1, 1]]
    found = score(table)
    assert found.predicted.tolist() == [1, 1]
    assert found.labelled.tolist() == [2, 2]
    assert found.iou.tolist() == [0.5, 0.5]
    assert found.precision.tolist() == [1, 1]
    assert found.pixel_accuracy == 0.5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("label_type", [torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize(
    "pred_type", [torch.uint8, torch.uint16, torch.int8, torch.int16, torch.int32, torch.int64]
)
def test_every_integer_type(pred_type, label_type, device):
    pred, label = maps(7)
    pred[pred < 0] = 99
    expected = count_slowly(pred, label, 5)
    given = pred.to(pred_type).to(device), label.to(label_type).to(device)
    table = confusion_matrix(*given, 5)
    assert table.device.type == device
    assert table.tolist() == expected


def test_labels_of_unsigned_type():
    pred, label = maps(8)
    label = label.clamp(min=0)
    for dtype in (torch.uint8, torch.uint16):
        assert torch.equal(confusion_matrix(pred, label.to(dtype), 5), confusion_matrix(pred, label, 5))


def test_the_maps_are_not_changed():
    pred, label = maps(9)
    before = pred.clone(), label.clone()
    confusion_matrix(pred, label, 5)
    assert torch.equal(pred, before[0])
    assert torch.equal(label, before[1])


@pytest.mark.parametrize("device", DEVICES)
def test_more_pixels_than_float32_can_count(device):
    """2^24 + 1 is the first integer that float32 does not hold: one pixel would get lost."""
    size = (4097, 4097)
    pred = torch.zeros(size, dtype=torch.uint8, device=device)
    label = torch.zeros(size, dtype=torch.int8, device=device)
    pred[-1, -1] = 1
    table = confusion_matrix(pred, label, 2)
    assert table.tolist() == [[4097**2 - 1, 1, 0], [0, 0, 0]]
    assert score(table).pixel_accuracy == (4097**2 - 1) / 4097**2 < 1


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 200_000), (200_000, 1)])
def test_every_size(size):
    pred = torch.zeros(size, dtype=torch.uint8)
    assert int(confusion_matrix(pred, pred, 3)[0, 0]) == pred.numel()


@pytest.mark.parametrize("value", [3, 255, 40_000, 2**40])
def test_a_label_that_is_no_class_is_an_error(value):
    label = torch.tensor([[0, value, -1]])
    with pytest.raises(ShapeError, match="1 pixels have a label outside 0 to 2"):
        confusion_matrix(torch.zeros_like(label), label, 3)


def test_maps_of_different_size_are_an_error():
    with pytest.raises(ShapeError, match="must both be"):
        confusion_matrix(torch.zeros(2, 3, dtype=torch.long), torch.zeros(3, 2, dtype=torch.long), 3)


# --- scores ----------------------------------------------------------------------------------------------


def test_a_perfect_prediction_scores_one():
    label = maps(1)[1]
    found = score(confusion_matrix(label, label, 5), unseen=[1, 3])
    for values in (found.iou, found.accuracy, found.precision, found.dice, found.fscore):
        assert values.tolist() == [1] * 5
    means = (found.miou, found.mean_accuracy, found.pixel_accuracy)
    assert (*means, found.miou_seen, found.miou_unseen, found.hiou) == (1,) * 6


@pytest.mark.parametrize("seed", range(5))
def test_renaming_classes_renames_scores(seed):
    pred, label = maps(seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    renamed = [torch.where((x >= 0) & (x < 5), order[x.clamp(0, 4)], x) for x in (pred, label)]
    before = score(confusion_matrix(pred, label, 5), unseen=[0, 2])
    after = score(confusion_matrix(*renamed, 5), unseen=order[[0, 2]].tolist())
    for key in ("iou", "accuracy", "precision", "dice", "fscore", "labelled", "predicted"):
        assert same(getattr(after, key)[order], getattr(before, key)), key
    for key in ("miou", "mean_accuracy", "pixel_accuracy", "miou_seen", "miou_unseen", "hiou"):
        assert getattr(after, key) == pytest.approx(getattr(before, key), rel=1e-14), key


def test_absent_classes_are_left_out_and_invented_ones_count_as_zero():
    # 0 is right, 1 was missed altogether, 2 is predicted but never labelled, 3 is nowhere.
    table = torch.tensor([[6, 0, 2, 0, 0], [3, 0, 0, 0, 1], [0] * 5, [0] * 5])
    found = score(table)
    nan = math.nan
    assert same(found.iou, torch.tensor([6 / 11, 0, 0, nan], dtype=torch.float64))
    assert same(found.accuracy, torch.tensor([6 / 8, 0, nan, nan], dtype=torch.float64))
    assert same(found.precision, torch.tensor([6 / 9, nan, 0, nan], dtype=torch.float64))
    assert same(found.dice, torch.tensor([12 / 17, 0, 0, nan], dtype=torch.float64))
    assert found.fscore.isnan().tolist() == [False, True, True, True]
    assert found.miou == pytest.approx(6 / 11 / 3)
    assert found.mean_accuracy == pytest.approx(0.375)


def test_nothing_labelled_gives_nan_and_no_error():
    found = score(torch.zeros(4, 5, dtype=torch.long), unseen=[2])
    values = found.miou, found.mean_accuracy, found.pixel_accuracy
    assert all(math.isnan(v) for v in (*values, found.miou_seen, found.miou_unseen, found.hiou))
    assert found.iou.isnan().all()
    assert found.labelled.tolist() == [0, 0, 0, 0]


def test_without_a_split_there_is_no_harmonic_mean():
    found = score(torch.eye(3, 4, dtype=torch.long))
    assert (found.miou_seen, found.miou_unseen, found.hiou) == (None, None, None)


def test_a_split_averages_each_side():
    table = torch.zeros(4, 5, dtype=torch.long)
    table[range(4), range(4)] = torch.tensor([10, 5, 2, 0])
    table[range(4), [4] * 4] = torch.tensor([0, 5, 8, 10])  # IoU 1, 0.5, 0.2, 0
    found = score(table, unseen=(2, 3))
    assert found.miou_seen == pytest.approx(0.75)
    assert found.miou_unseen == pytest.approx(0.1)
    assert found.hiou == pytest.approx(2 * 0.75 * 0.1 / 0.85)


def test_nobody_seen_leaves_the_seen_side_undefined():
    found = score(torch.eye(3, 4, dtype=torch.long), unseen=(0, 1, 2))
    assert found.miou_unseen == 1
    assert math.isnan(found.miou_seen)
    assert math.isnan(found.hiou)


@pytest.mark.parametrize("unseen", [(3,), (-1,), (0, 99)])
def test_an_unseen_class_must_exist(unseen):
    with pytest.raises(ShapeError, match="cannot be unseen"):
        score(torch.eye(3, 4, dtype=torch.long), unseen)


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (12,)])
def test_only_a_confusion_matrix_is_scored(shape):
    with pytest.raises(ShapeError, match="C, C \\+ 1"):
        score(torch.zeros(shape, dtype=torch.long))


def test_harmonic_mean():
    assert harmonic_mean(0.0, 0.0) == 0
    assert harmonic_mean(1.0, 0.0) == 0
    assert harmonic_mean(0.5, 0.5) == 0.5
    assert harmonic_mean(86.1, 88.8) == pytest.approx(87.43, abs=0.01)
    assert math.isnan(harmonic_mean(math.nan, 0.0))
