"""A fused optimiser walks through memory: what it remembers has to lie there as the weights do."""

from __future__ import annotations

import copy

import pytest
import torch

from clipseg_cli.training.checkpoints import _laid_out_as


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_what_is_read_from_a_file_goes_on_as_if_it_had_never_been_written(kind):
    options = {"lr": 0.1, "fused": True} | ({"momentum": 0.9} if kind is torch.optim.SGD else {})
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 8, 3, 3, generator=generator).to(memory_format=torch.channels_last)
    gradients = [torch.randn(4, 8, 3, 3, generator=generator).to(weight) for _ in range(2)]
    parameter = torch.nn.Parameter(weight)
    optimiser = kind([parameter], **options)
    step(optimiser, parameter, gradients[0])
    other = torch.nn.Parameter(copy.deepcopy(parameter.data))
    resumed = kind([other], **options)
    for name, value in optimiser.state[parameter].items():
        resumed.state[other][name] = _laid_out_as(other, value.clone(memory_format=torch.contiguous_format))
    step(optimiser, parameter, gradients[1])
    step(resumed, other, gradients[1])
    assert torch.equal(other, parameter)


def step(optimiser: torch.optim.Optimizer, parameter: torch.nn.Parameter, gradient: torch.Tensor) -> None:
    parameter.grad = gradient.contiguous(memory_format=torch.channels_last)
    optimiser.step()
