"""`clipseg index --suggest`: which pictures of a folder to correct next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clipseg_cli.data.image_files import find_images, nothing_left
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ClipsegError
from clipseg_cli.inference.dataset import open_data
from clipseg_cli.inference.load import load_reader
from clipseg_cli.inference.memory import read_levels
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.memory.files import read_facts
from clipseg_cli.ops.coverage import most_covering, visual_words, word_shares
from clipseg_cli.types import ClassList

if TYPE_CHECKING:
    from clipseg_cli.config import IndexConfig
    from clipseg_cli.types import ImageSource

WORDS = 64
"""Visual words."""

SAMPLED = 128
"""Patches of an image that are looked at."""


@dataclass(frozen=True)
class Suggestion:
    """Pictures to correct.

    Attributes:
        names: the most telling first.
        total: pictures that were looked at.
        known: how many of them are in a bank already.
        failures: of pictures that could not be read.
    """

    names: tuple[str, ...]
    total: int
    known: int
    failures: tuple[ClipsegError, ...]


def suggest_pictures(config: IndexConfig) -> Suggestion:
    """The pictures that show most of what is in a folder and not yet in the bank `config.out`, where there is one.

    Raises:
        ClipsegError: anything wrong with folder, bank or model.
    """
    sources, failures = _sources(config)
    facts = read_facts(config.out, whole=False)
    known = set(facts.pictures) if facts is not None else set()
    protocol = find_protocol(config.protocol)
    predictor, _ = load_reader(config, protocol, ClassList(("thing",), (("thing",),)))
    names: list[str] = []
    patches: list[torch.Tensor] = []
    errors: list[ClipsegError] = list(failures)
    for source in sources:
        try:
            image = read_image(source, max_megapixels=config.max_megapixels)
        except ClipsegError as error:
            errors.append(error)
            continue
        levels = read_levels(predictor, predictor.prepare(image)).flatten(1).mT.cpu()  # [n, F]
        levels = levels[
            :, levels.shape[1] // 2 :
        ]  # the deeper half, which knows more of things than of colours
        names.append(str(source.relative))
        patches.append(levels[torch.linspace(0, len(levels) - 1, min(SAMPLED, len(levels))).long()])
    if not names:
        raise nothing_left([])
    centres = visual_words(torch.cat(patches), WORDS)
    shares = torch.stack([word_shares(one, centres) for one in patches])
    before = [i for i, name in enumerate(names) if name in known]
    chosen = most_covering(shares, config.suggest or 0, before)
    return Suggestion(tuple(names[i] for i in chosen), len(names), len(before), tuple(errors))


def _sources(config: IndexConfig) -> tuple[list[ImageSource], list[ClipsegError]]:
    """The pictures of a split of a data set, or of any folder."""
    if config.split:
        dataset, _ = open_data(config, "label")
        return [sample.source for sample in dataset.samples], []
    found, failures = find_images((config.dataset,))
    if not found:
        raise nothing_left(failures)
    return found, list(failures)
