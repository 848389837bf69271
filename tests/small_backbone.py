"""A backbone with little to compute and to write, by the name of `small`, for tests that train often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from clipseg_cli.models.student import backbones as student_backbones

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = ("resnet10t", {"channels": (16, 16, 16, 16)})
"""What `student_backbones.OWN` says of it; also for processes of their own."""

SMALL_WORDS = ("--backbone", "small", "--short-side", "0")
"""Pictures as they are, whatever the preset makes of them."""


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """A test file that imports it can name the backbone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(student_backbones.OWN, "small", SMALL)
        student_backbones.backbone_names.cache_clear()
        yield
    student_backbones.backbone_names.cache_clear()
