"""A head of CLIP-DINOiser that is no whole head is told in a sentence."""

from __future__ import annotations

import pytest
import torch

from clipseg_cli.errors import ModelError
from clipseg_cli.models.auxiliary.dinoiser_head import DinoiserHead

HEAD = DinoiserHead(8, 4).state_dict()


def test_a_whole_head_is_read() -> None:
    found = DinoiserHead.of(HEAD).state_dict()
    assert all(torch.equal(found[key], HEAD[key]) for key in HEAD)


@pytest.mark.parametrize("key", sorted(HEAD))
def test_a_missing_tensor_is_named(key: str) -> None:
    with pytest.raises(ModelError, match=key.replace(".", "[.]")):
        DinoiserHead.of({name: value for name, value in HEAD.items() if name != key})


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("bkg_decoder.weight", torch.zeros(1, 9, 1, 1), r"weight is \[1, 9, 1, 1\]"),
        ("bkg_decoder.bias", torch.tensor([float("nan")]), "NaN or infinity"),
        ("obj_proj.bias", torch.zeros(5), r"obj_proj.bias is \[5\]"),
        ("obj_proj.weight", torch.zeros(4), "obj_proj.weight of four dimensions"),
    ],
)
def test_what_does_not_fit_is_named(key: str, value: torch.Tensor, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        DinoiserHead.of({**HEAD, key: value})
