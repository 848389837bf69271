"""What a model, a protocol, a quality and a bank choose for the user, filled in where the user chose nothing."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import DEFAULT_PROTOCOL, GRAPHS, OFF, PROTOCOLS, model_brings, quality_for
from clipseg_cli.errors import UsageError
from clipseg_cli.inference.banks import memory_kind, with_memory
from clipseg_cli.inference.regions import is_here, split_name
from clipseg_cli.memory.files import REGIONS as OF_REGIONS
from clipseg_cli.methods import find_method
from clipseg_cli.models.auxiliary.self_supervised import self_supervised_is_here
from clipseg_cli.models.weights import hub

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipseg_cli.config import Brings, InferenceConfig, Protocol

NAMED = ("guide", "regions", "propagate")
"""Options that `none` turns off."""

INSTEAD = "superpixels"
"""Of regions whose weights cannot be had."""


@dataclass(frozen=True)
class Completed:
    """Options with nothing left to be brought.

    Attributes:
        hyperparameters: that were brought, as `--set` takes them.
        notes: what a user should be told of what was brought.
    """

    config: InferenceConfig
    hyperparameters: Mapping[str, str]
    notes: tuple[str, ...] = ()


def complete(config: InferenceConfig, protocol: Protocol, *, indexing: bool = False) -> Completed:
    """The options in force.

    Args:
        config: the user's options.
        protocol: as it is on the benchmark.
        indexing: a bank of regions is being made, so that `--regions` has a use.

    Raises:
        ClipsegError: a quality beside a publication, or what `with_memory` says.
    """
    if config.student:
        return Completed(without_none(config), {})
    check_quality(config)
    notes: list[str] = []
    hyperparameters: dict[str, str] = {}
    found = config
    plain = config.protocol == DEFAULT_PROTOCOL.name  # a publication fixes its settings, whatever the model
    wholes = (
        model_brings(config.model, config.pretrained) if plain else None,
        quality_for(config.quality, config.model) if config.quality else None,
        protocol,
    )
    for brings in wholes:
        if brings is not None:
            found = _filled(found, brings, indexing=indexing)
            hyperparameters |= brings.hyperparameters
    if config.quality:
        found, notes = _as_far_as_here(config, found)
    found = with_memory(without_none(found), find_method(found.method_name))
    if memory_kind(found.memory) == OF_REGIONS:
        hyperparameters["corrclip.merge"] = "false"  # as published beside a bank
    return Completed(found, hyperparameters, tuple(notes))


def check_quality(config: InferenceConfig) -> None:
    """Refuse a quality beside what says the same.

    Raises:
        UsageError: a publication has a method of its own.
    """
    if config.quality and config.protocol != DEFAULT_PROTOCOL.name and PROTOCOLS[config.protocol].method:
        raise UsageError(
            f"--quality {config.quality} and --protocol {config.protocol} both choose how images are read",
            hint="leave out one of them",
        )


def without_none(config: InferenceConfig) -> InferenceConfig:
    """The options without those that say `none`."""
    named: dict[str, Any] = {name: "" for name in NAMED if getattr(config, name) == OFF}
    return dataclasses.replace(config, **named) if named else config


def _filled(config: InferenceConfig, brings: Brings, *, indexing: bool) -> InferenceConfig:
    """The options with what is brought, where nothing was chosen and somebody asks for it."""
    method = find_method(config.method_name)
    new: dict[str, Any] = {}
    if not config.propagate and brings.propagate:
        new["propagate"] = brings.propagate
    voting = brings.region_vote if config.region_vote is None else config.region_vote
    asked = voting or indexing or method.read_regions is not None or memory_kind(config.memory) == OF_REGIONS
    if not config.regions and brings.regions and asked:
        new["regions"] = brings.regions
    if (
        config.region_vote is None
        and brings.region_vote
        and {config.regions, new.get("regions")} - {"", OFF, None}
    ):
        new["region_vote"] = True
    graph = new.get("propagate", config.propagate) in GRAPHS
    looks = bool(method.guided) or graph or indexing or memory_kind(config.memory) == OF_REGIONS
    if not config.guide and brings.guide and looks:
        new["guide"] = brings.guide
    return dataclasses.replace(config, **new)


def _as_far_as_here(typed: InferenceConfig, config: InferenceConfig) -> tuple[InferenceConfig, list[str]]:
    """Without the networks that a quality brought where they are not on this machine and cannot be downloaded."""
    lacking: dict[str, str] = {}
    if config.regions != typed.regions and not is_here(config.regions):
        lacking["regions"] = config.regions
    if config.guide != typed.guide and not self_supervised_is_here(config.guide):
        lacking["guide"] = config.guide
    if not lacking or hub.online():
        return config, []
    changed: dict[str, Any] = dict.fromkeys(lacking, "")
    notes = []
    for option, name in lacking.items():
        instead = "the tower itself"
        if option == "regions":
            changed[option] = instead = INSTEAD
        notes.append(
            f"--quality {config.quality} would take --{option} {split_name(name)[0].replace('_', '-')}, whose weights "
            f"are not on this machine and cannot be fetched; it takes {instead} instead"
        )
    return dataclasses.replace(config, **changed), notes
