"""`clipseg index --suggest`: which images of a folder to correct next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clipseg_cli.data.image_files import nothing_left
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ClipsegError
from clipseg_cli.inference.dataset import images_of
from clipseg_cli.inference.load import load_reader
from clipseg_cli.inference.remember import read_levels
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.memory.files import read_facts
from clipseg_cli.ops.coverage import most_covering
from clipseg_cli.ops.discriminant import moments
from clipseg_cli.ops.small_net import whitening
from clipseg_cli.types import ClassList

if TYPE_CHECKING:
    from clipseg_cli.config import IndexConfig
    from clipseg_cli.ops.discriminant import Moments

DIRECTIONS = 64
"""Of most variance, by which images are compared."""

COUNTED = 512
"""Patches of an image that these are found from, and not many more."""


@dataclass(frozen=True)
class Suggestion:
    """Images to correct.

    Attributes:
        names: the most informative first.
        total: images that were looked at.
        known: how many of them are in a bank already.
        failures: of images that could not be read.
    """

    names: tuple[str, ...]
    total: int
    known: int
    failures: tuple[ClipsegError, ...]


def suggest_images(config: IndexConfig) -> Suggestion:
    """The images that show most of what is in a folder and not yet in the bank `config.out`, where there is one.

    Raises:
        ClipsegError: anything wrong with folder, bank or model.
    """
    sources, failures, _ = images_of(config)
    facts = read_facts(config.out, whole=False)
    known = set(facts.images) if facts is not None else set()
    protocol = find_protocol(config.protocol)
    predictor, _ = load_reader(config, protocol, ClassList(("thing",), (("thing",),)))
    names: list[str] = []
    means: list[torch.Tensor] = []
    seen: Moments | None = None
    errors: list[ClipsegError] = list(failures)
    for source in sources:
        try:
            image = read_image(source, max_megapixels=config.max_megapixels)
        except ClipsegError as error:
            errors.append(error)
            continue
        names.append(str(source.relative))
        levels = read_levels(predictor, predictor.prepare(image)).flatten(1).mT.cpu()  # [n, F]
        means.append(levels.mean(dim=0))
        some = levels[:: max(1, len(levels) // COUNTED)]
        own = moments(some, torch.ones(len(some), 1))
        seen = own if seen is None else seen + own
    if seen is None:
        raise nothing_left([])
    before = [i for i, name in enumerate(names) if name in known]
    # What images vary in most, which often is what they show, and, as much, what their patches vary in little.
    mean = torch.stack(means).double()
    telling = torch.cat([_of_one_size(mean), _of_one_size(mean @ whitening(seen, DIRECTIONS))], dim=1)
    chosen = most_covering(telling, config.suggest or 0, before)
    return Suggestion(tuple(names[i] for i in chosen), len(names), len(before), tuple(errors))


def _of_one_size(features: torch.Tensor) -> torch.Tensor:
    """Features [P, d] of images about their mean, of mean square length 1."""
    apart = features - features.mean(dim=0)
    return apart / apart.square().sum(dim=1).mean().sqrt().clamp(min=1e-12)
