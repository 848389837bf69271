"""What makes a student faster says the same: folded norms, kernels without what lies in the padding."""

import copy

import pytest
import torch
import torch.nn.functional as F
from student_nets import _same_numbers, make  # noqa: F401
from torch import nn

from clipseg_cli.models.student.folded import fold_norms
from clipseg_cli.models.student.heads import DilatedConv


def lived_in(backbone: str, head: str) -> nn.Module:
    """A student whose norms have seen something."""
    student = make(head, backbone=backbone).eval()
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return student.requires_grad_(False)


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ("resnet10t", "deeplabv2"),  # a stem of three, norms with an activation
        ("resnet14t", "deeplabv3plus"),  # bottlenecks, separable convolutions
        ("resnet18c", "deeplabv2"),
    ],
)
def test_folded_norms_leave_none_and_change_nothing(backbone, head):
    student = lived_in(backbone, head)
    folded = copy.deepcopy(student)
    fold_norms(folded)
    assert not [name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    image = torch.randn(2, 3, 65, 48)
    torch.testing.assert_close(folded(image)[1], student(image)[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(5, 4), (6, 7), (7, 6), (13, 5), (20, 20)])
def test_a_kernel_without_its_padding_gives_the_same(size):
    convolution = DilatedConv(4, 8, 3, padding=6, dilation=6, bias=False)
    x = torch.randn(2, 4, *size, requires_grad=True)
    found, plain = convolution(x), F.conv2d(x, convolution.weight, padding=6, dilation=6)
    torch.testing.assert_close(found, plain)
    loss = torch.randn_like(plain)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, convolution.weight), loss),
        torch.autograd.grad(plain, (x, convolution.weight), loss),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_kernel_is_no_larger_than_what_it_can_see():
    convolution = DilatedConv(4, 8, 3, padding=6, dilation=6, bias=False)
    with torch.profiler.profile(record_shapes=True) as profile:
        convolution(torch.randn(1, 4, 6, 9))
    kernels = [event.input_shapes[1] for event in profile.events() if event.name == "aten::conv2d"]
    assert kernels == [[8, 4, 1, 3]]
