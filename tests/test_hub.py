"""The switches of the whole process that looking for weights needs, from several threads."""

from __future__ import annotations

import logging
import threading
import warnings

import pytest
from huggingface_hub import constants

from clipseg_cli.errors import ModelError
from clipseg_cli.models.weights import hub


def state() -> tuple[object, ...]:
    return (
        constants.HF_HUB_OFFLINE,
        logging.root.manager.disable,
        tuple(logging.getLogger().handlers),
        tuple(warnings.filters),
    )


def test_overlapping_quiet_threads_leave_everything_as_it_was() -> None:
    before = state()
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def first() -> None:
        with hub.quiet():
            first_in.set()
            second_in.wait(10)
        first_out.set()

    def second() -> None:
        first_in.wait(10)
        with hub.quiet():
            second_in.set()
            first_out.wait(10)
            assert logging.root.manager.disable == logging.CRITICAL

    both = [threading.Thread(target=first), threading.Thread(target=second)]
    for each in both:
        each.start()
    for each in both:
        each.join(10)
    assert state() == before


def test_models_loaded_in_two_threads_leave_the_hub_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one see the other's: a thread that may fetch is not told that fetching is forbidden."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "reachable", lambda *_: False)
    before = state()
    inside = threading.Event()
    failures: list[str] = []

    def missing(local: bool) -> str:
        inside.set()
        threading.Event().wait(0.1)
        raise FileNotFoundError("not here")

    def load(wait: bool) -> None:
        if wait:
            inside.wait(10)
        with pytest.raises(ModelError) as caught:
            hub.with_cache_first(missing, "weights")
        failures.append(caught.value.message)

    both = [threading.Thread(target=load, args=(wait,)) for wait in (False, True)]
    for each in both:
        each.start()
    for each in both:
        each.join(20)
    assert state() == before
    assert len(failures) == 2 and all("cannot be reached" in message for message in failures)


def test_offline_holds_for_files_outside_the_hub_too(monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "reachable", lambda url: pytest.fail(f"asked {url}"))
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids fetching it"):
        hub.fetch_weights({"url": "https://weights.invalid/head-of-found.pt"}, "the head")
