"""The student: two heads, strides as published, words as queries, and what does not fit."""

from __future__ import annotations

import math

import pytest
import torch
from student_nets import (
    QUERY_TO_CLASS,
    _same_numbers,  # noqa: F401
    make,
    message,
)
from torch import nn

from clipseg_cli.errors import ShapeError, UsageError
from clipseg_cli.models.student.backbones import build_backbone
from clipseg_cli.models.student.heads import DeepLabV2Head, DeepLabV3PlusHead
from clipseg_cli.models.student.network import Student, StudentShape

HEADS = ("deeplabv2", "deeplabv3plus")


def noise(*shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def students():
    return {head: make(head).eval() for head in HEADS}


@pytest.mark.parametrize("size", [(65, 97), (64, 96), (17, 40), (1, 1)])
@pytest.mark.parametrize("head", HEADS)
def test_sizes_are_rounded_up(head, size, students):
    with torch.inference_mode():
        features, logits = students[head](noise(2, 3, *size))
    stride = {"deeplabv2": 8, "deeplabv3plus": 4}[head]
    assert students[head].stride == stride
    h, w = (math.ceil(side / stride) for side in size)
    assert features.shape == (2, 16, h, w)
    assert logits.shape == (2, 3, h, w)


FAMILIES = [
    "resnet18",
    "resnet18c",
    "resnet18d",
    "resnet10t",
    "resnet50s",
    "resnet101c",
    "resnetblur18",
    "resnetrs50",
]
"""One of each way to build a stem, a shortcut and a block; the others differ in depth."""


@pytest.mark.parametrize("name", [*FAMILIES, "resnet50_gn"])
def test_every_backbone_has_stride_8_and_rounds_up(name):
    with torch.device("meta"):
        net, channels = build_backbone(name, 8, (1, 4))
        first, last = net.eval()(torch.zeros(1, 3, 65, 97))
    assert first.shape == (1, channels[0], 17, 25)
    assert last.shape == (1, channels[1], 9, 13)
    # What has weights under other names, or norms that are not to be synchronised, would need care elsewhere.
    assert {type(m) for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)} <= {
        nn.BatchNorm2d
    }


@pytest.mark.parametrize("name", ["resnet18c", "resnet50c"])
def test_stages_dilate_as_published(name):
    with torch.device("meta"):
        net, _ = build_backbone(name, 8, (4,))
    convs = {k: m for k, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}
    last = "conv2"  # the only dilated convolution of a bottleneck, and the second of a basic block
    dilations = [convs[f"layer{stage}.1.{last}"].dilation[0] for stage in (1, 2, 3, 4)]
    strides = [max(m.stride[0] for k, m in convs.items() if k.startswith(f"layer{s}.")) for s in (1, 2, 3, 4)]
    first = "conv1" if name == "resnet18c" else "conv2"
    assert dilations == [1, 1, 2, 4]
    assert strides == [1, 2, 1, 1]
    assert [convs[f"layer{stage}.0.{first}"].dilation[0] for stage in (3, 4)] == [1, 2]
    assert [convs[f"conv1.{i}"].out_channels for i in (0, 3, 6)] == [32, 32, 64]


def test_a_picture_moved_by_8_pixels_moves_the_features_by_one(students):
    image = noise(1, 3, 160, 160)
    with torch.inference_mode():
        here = students["deeplabv2"].backbone(image[..., 8:])[0]
        there = students["deeplabv2"].backbone(image)[0]
    torch.testing.assert_close(here[..., 9:10, 9:10], there[..., 9:10, 10:11], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(here[..., 9:10, 9:10], there[..., 9:10, 9:10], atol=1e-4, rtol=1e-4)


def test_output_stride_16_halves_the_grid():
    student = make(output_stride=16).eval()
    assert student.stride == 16
    assert student(noise(1, 3, 65, 97))[0].shape[-2:] == (5, 7)
    assert "8, 16, 32" in message(lambda: make(output_stride=4))


def test_the_deeplabv2_feature_is_the_sum_of_four_branches():
    c, d = 6, 8
    head = DeepLabV2Head(c, d).eval()
    assert [b[0].dilation for b in head.branches] == [(6, 6), (12, 12), (18, 18), (24, 24)]
    assert sum(p.numel() for p in head.parameters()) == 4 * (9 * c * d + 2 * d)
    x = noise(1, c, 30, 30)
    with torch.no_grad():
        torch.testing.assert_close(head([x]), torch.stack([b(x) for b in head.branches]).sum(dim=0))
    assert all((b(x) >= 0).all() for b in head.branches)


def test_the_deeplabv3plus_head_has_the_published_layers():
    c1, c, d = 5, 6, 8
    head = DeepLabV3PlusHead(c1, c, d)
    norms = 2 * (d + 3 * (c + d) + d + d + 48 + (d + 48 + d) + (d + d))
    convs = [
        c * d,
        3 * (9 * c + c * d),
        c * d,  # image pooling
        9 * 5 * d * d,
        48 * c1,
        9 * (d + 48) + (d + 48) * d,
        9 * d + d * d,
    ]
    assert sum(p.numel() for p in head.parameters()) == sum(convs) + norms
    assert [b[0][0].dilation[0] for b in head.branches[1:]] == [12, 24, 36]
    assert not [m for m in head.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]


def test_image_pooling_lets_every_pixel_see_every_other():
    head = DeepLabV3PlusHead(5, 6, 8).eval()
    low, high = noise(1, 5, 160, 160), noise(1, 6, 80, 80).requires_grad_()
    head((low, high))[..., :4, :4].sum().backward()
    assert (high.grad[..., 79, 79] != 0).any()


def test_one_crop_cannot_train_image_pooling():
    student = make("deeplabv3plus").train()
    assert "batch size of 2" in message(student, noise(1, 3, 32, 32))
    assert student(noise(2, 3, 32, 32))[1].shape == (2, 3, 8, 8)
    assert student.eval()(noise(1, 3, 32, 32))[1].shape == (1, 3, 8, 8)


@pytest.mark.parametrize("head", HEADS)
def test_everything_learns_but_the_words(head):
    student = make(head).train()
    before = student.text_embeds.clone()
    _, logits = student(noise(2, 3, 64, 64))
    (logits * noise(*logits.shape)).sum().backward()
    still = [k for k, p in student.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # Branches of a residual net that begin at zero let nothing through at first.
    assert not [k for k in still if ".conv" not in k and ".bn" not in k]
    assert "backbone.conv1.0.weight" not in still
    assert "background" not in still
    assert "text_embeds" not in dict(student.named_parameters())
    torch.optim.SGD(student.parameters(), lr=0.1).step()
    assert torch.equal(student.text_embeds, before)


def test_queries_are_unit_rows_with_the_learnt_background_in_its_place():
    for background, q in ((0, 0), (2, 3)):
        student = make(background=background)
        queries = student.queries()
        torch.testing.assert_close(queries.norm(dim=1), torch.ones(4))
        torch.testing.assert_close(queries[q], student.background / student.background.norm())
        others = [i for i in range(4) if i != q]
        assert torch.equal(queries[others], student.text_embeds[others])
    student = make(background=None)
    assert student.background is None
    assert torch.equal(student.queries(), student.text_embeds)


def test_the_best_word_speaks_for_its_class():
    shape = StudentShape("resnet10t", "deeplabv2", 16)
    student = Student(shape, torch.eye(16)[:4], QUERY_TO_CLASS, None).eval()
    with torch.no_grad():
        features, logits = student(noise(1, 3, 65, 65))
    assert torch.equal(student.logits(features), features[:, :4])
    best = torch.maximum(features[:, 1], features[:, 2])
    assert torch.equal(logits, torch.stack([features[:, 0], best, features[:, 3]], dim=1))
    assert (features[:, 1] > features[:, 2]).any()
    assert (features[:, 1] < features[:, 2]).any()


def test_queries_of_classes_in_any_order_reach_their_class():
    words = torch.eye(4)[:3]
    student = Student(StudentShape("resnet10t", "deeplabv2", 4), words, (2, 0, 1), None).eval()
    with torch.inference_mode():
        features, logits = student(noise(1, 3, 16, 16))
    assert torch.equal(logits, features[:, [1, 2, 0]])


def test_new_words_can_be_asked_for(students):
    features = noise(1, 16, 3, 4)
    words = torch.eye(16)[:5]
    assert torch.equal(students["deeplabv2"].logits(features, words), features[:, :5])


def test_normalised_logits_do_not_see_the_length_of_features():
    plain, normalising = make(), make(normalise=True)
    features = noise(1, 16, 3, 4)
    torch.testing.assert_close(normalising.logits(features * 7), normalising.logits(features))
    assert normalising.logits(features).abs().max() <= 100
    torch.testing.assert_close(
        normalising.logits(features),
        100
        * torch.cosine_similarity(features[:, None], normalising.queries()[None, :, :, None, None], dim=2),
    )
    torch.testing.assert_close(plain.logits(features * 7), plain.logits(features) * 7)


def test_the_seed_decides_all_weights():
    one, same, other = make(seed=3), make(seed=3), make(seed=4)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
    assert not torch.equal(one.background, other.background)
    assert not torch.equal(one.head.branches[0][0].weight, other.head.branches[0][0].weight)


@pytest.mark.parametrize("head", HEADS)
def test_channels_last_gives_the_same(head, students):
    image = noise(1, 3, 40, 56)
    with torch.inference_mode():
        expected = students[head](image)
        last = make(head).eval().to(memory_format=torch.channels_last)
        for got, wanted in zip(
            last(image.contiguous(memory_format=torch.channels_last)), expected, strict=True
        ):
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_autocast_ends_at_the_features(head, students):
    student = students[head]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        features, logits = student(noise(1, 3, 40, 56))
        assert torch.equal(student.logits(features.bfloat16()), student.logits(features))
    assert features.dtype == logits.dtype == torch.float32
    with torch.inference_mode():
        words = student.logits(features)
    assert torch.equal(logits[:, [0, 2]], words[:, [0, 3]])


def test_what_does_not_fit_together_is_refused():
    shape = StudentShape("resnet10t", "deeplabv2", 16)
    words = torch.randn(4, 16)
    with pytest.raises(ShapeError, match="4 x 16"):
        Student(shape, words[:, :8], QUERY_TO_CLASS, None)
    with pytest.raises(ShapeError, match="every class"):
        Student(shape, words, (0, 0, 2, 2), None)
    with pytest.raises(UsageError, match="class 1 is the background and has 2 words"):
        Student(shape, words, QUERY_TO_CLASS, 1)
    assert "did you mean 'deeplabv2'" in message(lambda: make("deeplab2"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet110", "or 'resnet101'"),
        ("resnet18e", "'resnet18c'"),
        ("vit_base_patch16_224", ""),
        ("hf-hub:someone/resnet18", ""),
        ("../resnet18", "did you mean 'resnet18'"),
        ("resnetaa50", "did you mean"),
        ("resnet50_clip", "did you mean"),
    ],
)
def test_an_unknown_backbone_is_refused_with_the_nearest(name, hint):
    said = message(build_backbone, name, 8, (4,))
    assert said.startswith(f"unknown backbone '{name}' | ")
    assert hint in said


def test_centred_words_lose_what_they_share_and_new_ones_lose_the_same() -> None:
    torch.manual_seed(0)
    shared = 5 * nn.functional.normalize(torch.randn(1, 32), dim=1)
    text = nn.functional.normalize(shared + torch.randn(4, 32) / 32**0.5, dim=1)
    student = Student(StudentShape("resnet10t", "deeplabv2", 32, centre=True), text, (0, 1, 2, 3), None)
    assert (text @ text.T).min() > 0.9
    assert (student.queries() @ student.queries().T).tril(-1).max() < 0.3
    assert torch.allclose(student.rows_of(text), student.queries(), atol=1e-6)
    assert torch.allclose(student.queries(), nn.functional.normalize(text - text.mean(0), dim=1), atol=1e-6)


def test_the_background_has_no_part_in_the_mean_of_the_words() -> None:
    text = nn.functional.normalize(torch.randn(4, 32), dim=1)
    shape = StudentShape("resnet10t", "deeplabv2", 32, centre=True)
    student = Student(shape, text, (0, 1, 2, 3), background=1)
    assert torch.allclose(student.text_mean, text[[0, 2, 3]].mean(0), atol=1e-6)
    with pytest.raises(UsageError, match="the mean of one word"):
        Student(shape, text[:2], (0, 1), background=0)
