"""Runs to learn from, and what is changed in them."""

from __future__ import annotations

import pytest
from training_trees import (  # noqa: F401
    copy_run,
    copy_tree,
    free_run,
    session_tree,
    short_config,
)

from clipseg_cli.errors import ClipsegError
from clipseg_cli.training.task import open_task


@pytest.fixture(name="elsewhere")
def elsewhere_fixture(tree, tmp_path):
    """A copy of the data set that may be changed."""
    return copy_tree(tree, tmp_path / "voc")


@pytest.fixture(name="run")
def run_fixture(label_run, elsewhere, tmp_path):
    """A copy of the annotation-free run, over `elsewhere`."""
    return copy_run(label_run, tmp_path / "run", elsewhere)


def task(**options):
    return open_task(short_config(**options))


def refused(kind, **options):
    """Message and hint of the error that options are refused with."""
    with pytest.raises(ClipsegError) as caught:
        task(**options)
    assert type(caught.value) is kind
    return caught.value.message, caught.value.hint
