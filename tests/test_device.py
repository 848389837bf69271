"""Which device a name means."""

from __future__ import annotations

import pytest
import torch

from clipseg_cli.errors import UsageError
from clipseg_cli.utils.device import pick_device


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.parametrize("name", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("rank", "device"), [("0", "cuda"), ("1", "cuda:1"), ("3", "cuda:3"), ("5", "cuda:1")]
)
def test_each_process_of_torchrun_has_its_own_gpu(
    four_gpus: None, monkeypatch: pytest.MonkeyPatch, name: str, rank: str, device: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert pick_device(name) == torch.device(device)


def test_a_gpu_by_its_number_is_that_one(four_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("cuda:2") == torch.device("cuda:2")
    with pytest.raises(UsageError, match="has 4 CUDA device"):
        pick_device("cuda:4")
