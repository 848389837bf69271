"""Students small enough for tests."""

from __future__ import annotations

import pytest
import torch

from clipseg_cli.errors import ClipsegError
from clipseg_cli.models.student.network import Student, StudentShape

QUERY_TO_CLASS = (0, 1, 1, 2)


@pytest.fixture(autouse=True)
def _same_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make(head="deeplabv2", *, backbone="resnet10t", width=16, background=0, seed=0, **shape) -> Student:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        words = torch.randn(len(QUERY_TO_CLASS), width)
        return Student(StudentShape(backbone, head, width, **shape), words, QUERY_TO_CLASS, background)


def message(function, *args) -> str:
    with pytest.raises(ClipsegError) as error:
        function(*args)
    return f"{error.value.message} | {error.value.hint}"
