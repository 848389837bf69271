"""The bank that `--memory` names: checked, read, and turned into what is asked for every image."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from clipseg_cli.errors import ModelError, RunError, UsageError
from clipseg_cli.memory.files import Facts, read_facts, read_pictures
from clipseg_cli.memory.labelled import Labelled, learn
from clipseg_cli.ops.similarity import cosine_logits
from clipseg_cli.ops.windows import stitch
from clipseg_cli.refinements.memory import word_log_probabilities
from clipseg_cli.types import Recall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.types import ClassList, DenseModel, Method

SIZES = ("short_side", "window", "stride")
"""Options that a bank brings with it: what it learnt at one size holds at that size."""


@dataclass(frozen=True)
class Bank:
    """A bank of labelled images that was read.

    Attributes:
        folder: where it lies.
        facts: what it is.
        images: levels [n, F], shares [n, C] of each image, in the classes of the bank.
    """

    folder: Path
    facts: Facts
    pictures: tuple[Mapping[str, Tensor], ...]


def reading_of(config: InferenceConfig, protocol: str, method: str) -> dict[str, Any]:
    """What of the options decides what levels are: a bank is read in the way it was made."""
    return {"model": config.model, "method": method.replace("-", "_"), "protocol": protocol}


def sized_by_memory(config: InferenceConfig, method: Method) -> InferenceConfig:
    """The options with the sizes of the bank, where the user chose none.

    Raises:
        RunError: `--memory` names no bank, or none of labelled images.
        UsageError: it was made with another model, method or protocol, or the method reads nothing densely.
    """
    if not config.memory:
        return config
    if method.pyramid is not None:
        raise UsageError(
            f"--memory knows patches, and --method {config.method_name} looks at whole crops",
            hint="choose another --method, such as maskclip",
        )
    folder = _path(config.memory)
    facts = read_facts(folder)
    assert facts is not None
    if facts.kind != "labels":
        raise RunError(
            f"{folder} remembers {facts.kind}, not labels", hint="make a bank with clipseg index --labels"
        )
    own = reading_of(config, config.protocol, config.method_name)
    for name, value in own.items():
        if facts.identity["reading"].get(name) != value:
            there = facts.identity["reading"].get(name)
            raise UsageError(
                f"{folder} was made with --{name} {there}, not {value}",
                hint=f"add --{name} {there}, or index again with --{name} {value}",
            )
    sizes = {name: facts.identity["sizes"][name] for name in SIZES if getattr(config, name) is None}
    return dataclasses.replace(config, **sizes)


def load_bank(config: InferenceConfig, backbone: DenseModel) -> Bank | None:
    """The bank of `--memory`, or None without one.

    Raises:
        RunError: it cannot be read.
        ModelError: it was made with other weights.
    """
    if not config.memory:
        return None
    folder = _path(config.memory)
    facts = read_facts(folder)
    assert facts is not None
    made_with = facts.identity["weights"]
    if made_with != backbone.fingerprint:
        raise ModelError(
            f"{folder} was made with the weights {made_with}, and {backbone.name} / {backbone.pretrained} has "
            f"{backbone.fingerprint}",
            hint="use the same --model and --pretrained, or index again",
        )
    return Bank(folder, facts, tuple(read_pictures(folder, facts.pictures)))


def class_columns(bank: ClassList | tuple[str, ...], classes: ClassList) -> list[int]:
    """For each class the column of the same name in a bank, or -1 where only words know it."""
    names = bank if isinstance(bank, tuple) else bank.names
    places = {name.casefold(): i for i, name in enumerate(names)}
    return [places.get(name.casefold(), -1) for name in classes.names]


def recall_from(
    bank: Bank, classes: ClassList, text_embeds: Tensor, scale: float, device: torch.device
) -> Recall:
    """What a bank teaches about some classes.

    Args:
        bank: that was read.
        classes, text_embeds: that are asked for, and [Q, D] their words.
        scale: factor on cosines before a softmax.
        device: where it will be asked.

    Raises:
        RunError: the bank shows none of the classes.
    """
    names = tuple(bank.facts.identity["classes"])
    columns = class_columns(names, classes)
    if max(columns) < 0:
        raise RunError(
            f"{bank.folder} shows none of these classes: it knows {', '.join(names[:8])}",
            hint="classes are told by their names: the first word of each",
        )
    images = [_labelled(one, columns, classes, text_embeds, scale, device) for one in bank.pictures]
    if not any(bool(one.shares.sum() > 0) for one in images):
        raise RunError(
            f"no pixel of {bank.folder} shows one of these classes", hint="correct an image that does"
        )
    taught = learn(images)

    facts = {
        "fingerprint": bank.facts.fingerprint,
        "images": len(images),
        "classes": int(taught.known.sum()),
        "only_words": [
            name for name, known in zip(classes.names, taught.known.tolist(), strict=True) if not known
        ],
        "sharpness": taught.sharpness,
        "trust": taught.trust,
    }
    return Recall(taught.read, taught.judge, taught.known, taught.trust, taught.caution, facts)


def _labelled(
    picture: Mapping[str, Tensor],
    columns: list[int],
    classes: ClassList,
    text_embeds: Tensor,
    scale: float,
    device: torch.device,
) -> Labelled:
    levels = picture["levels"].to(device).float()
    shares = picture["shares"].to(device).float() / 255
    own = shares.new_zeros(len(shares), len(columns))
    for c, column in enumerate(columns):
        if column >= 0:
            own[:, c] = shares[:, column]
    # The last level lives in the space of the words.
    features = levels[:, -text_embeds.shape[1] :].mT[None, :, :, None]
    words = word_log_probabilities(
        cosine_logits(features, text_embeds)[0, :, :, 0], classes.query_to_class, scale
    )
    return Labelled(levels, own, words.mT)


@torch.inference_mode()
def read_levels(predictor: Predictor, image: Prepared) -> Tensor:
    """Features of several depths of an image, windows averaged: [F, h, w] float32; see `ops.levels`."""
    patch, size = predictor.reader.patch, predictor.batch_size
    pixels = predictor.normalise(torch.from_numpy(image.resized).to(predictor.device).permute(2, 0, 1))
    found: list[Tensor] = []
    for start in range(0, len(image.windows), size):
        crops = torch.stack(
            [pixels[:, w.slices[0], w.slices[1]] for w in image.windows[start : start + size]]
        )
        with torch.autocast(predictor.device.type, predictor.dtype, enabled=predictor.dtype != torch.float32):
            levels = predictor.reader(crops).levels
        assert levels is not None  # this predictor was made for it
        found += list(levels.float())
    grid = (-(-pixels.shape[1] // patch), -(-pixels.shape[2] // patch))
    return stitch(found, [window.divided(patch) for window in image.windows], grid)


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # noqa: PTH111  (leaves the home of an unknown user as it is written)
