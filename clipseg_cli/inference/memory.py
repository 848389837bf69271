"""The bank that `--memory` names: read, and turned into what is asked for every image."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from clipseg_cli.errors import ModelError, RunError
from clipseg_cli.inference.banks import bank_path, facts_of
from clipseg_cli.memory.files import LABELS, Facts, read_images
from clipseg_cli.memory.labelled import Labelled, learn
from clipseg_cli.memory.retrieval import STEPS, Retrieval
from clipseg_cli.memory.shards import read_shards
from clipseg_cli.ops.levels import Packed
from clipseg_cli.ops.similarity import cosine_logits
from clipseg_cli.refinements.memory import NETWORK, RNS, word_log_probabilities
from clipseg_cli.refinements.region_memory import NEIGHBOURS
from clipseg_cli.types import Recall, RegionBank

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.inference.steps import Step
    from clipseg_cli.models.auxiliary.stages import Stages
    from clipseg_cli.types import ClassList, DenseModel, Guide


@dataclass(frozen=True)
class Bank:
    """A bank of labelled images that was read.

    Attributes:
        folder: where it lies.
        facts: what it is.
        images: levels and scale as in `ops.levels.Packed`, shares [V, C, h, w] of each image, in the classes of the
            bank.
    """

    folder: Path
    facts: Facts
    images: tuple[Mapping[str, Tensor], ...]


def load_memory(
    config: InferenceConfig, backbone: DenseModel, key_encoder: Guide | None, device: torch.device
) -> Bank | RegionBank | None:
    """The bank of `--memory`, or None without one.

    Args:
        config: its `memory` has been checked.
        backbone: the model.
        key_encoder: the network that embeds regions as keys; None where keys are values of the tower.
        device: where it will be asked.

    Raises:
        RunError: it cannot be read, or remembers nothing.
        ModelError: it was made with other weights.
    """
    if not config.memory:
        return None
    folder, facts = bank_path(config.memory), facts_of(config.memory)
    name = f"{backbone.name} / {backbone.pretrained}"
    _require_weights(folder, facts.identity["weights"], name, backbone.fingerprint)
    if facts.kind == LABELS:
        return Bank(folder, facts, tuple(read_images(folder, facts.images)))
    if key_encoder is not None:
        _require_weights(
            folder, facts.identity["guide"]["fingerprint"], config.guide, key_encoder.fingerprint
        )
    keys, values = read_shards(folder, facts.images, device)
    if not len(keys):
        raise RunError(
            f"{folder} is empty: it remembers no region", hint="index images again, with other --regions"
        )
    said = {"fingerprint": facts.fingerprint, "images": len(facts.images), "regions": len(keys)}
    return RegionBank(keys, values, key_encoder, said)


def require_stages(bank: Bank, stages: Stages | None) -> None:
    """Prove that a bank was made with the network that stands beside the tower now, or with none.

    Raises:
        ModelError: it was made with another one.
    """
    there, own = bank.facts.identity["stages"], "" if stages is None else stages.fingerprint
    _require_weights(bank.folder, there or "none", "the network beside the tower", own or "none")


def _require_weights(folder: Path, there: str, name: str, own: str) -> None:
    if there != own:
        raise ModelError(
            f"{folder} was made with the weights {there}, and {name} has {own}",
            hint="use the same weights, or index again",
        )


def memory_notes(bank: RegionBank | None, steps: Iterable[Step]) -> tuple[str, ...]:
    """What a user should be told of a bank that has fewer regions than are asked for."""
    asked = [
        step.hyperparameters.get("neighbours", NEIGHBOURS) for step in steps if step.name == "region_memory"
    ]
    if bank is None or not asked or len(bank.keys) >= asked[0]:
        return ()
    neighbours = asked[0]
    return (
        f"the bank remembers {len(bank.keys)} regions and {neighbours} neighbours are asked for: every region of an "
        "image gets all of them, which says little",
    )


def class_columns(bank: ClassList | tuple[str, ...], classes: ClassList) -> list[int]:
    """For each class the column of the same name in a bank, or -1 where only words know it."""
    names = bank if isinstance(bank, tuple) else bank.names
    places = {name.casefold(): i for i, name in enumerate(names)}
    return [places.get(name.casefold(), -1) for name in classes.names]


def recall_from(
    bank: Bank,
    classes: ClassList,
    text_embeds: Tensor,
    scale: float,
    device: torch.device,
    chosen: Mapping[str, Any] = MappingProxyType({}),
    *,
    placed: bool = True,
) -> Recall:
    """What a bank teaches about some classes.

    Args:
        bank: that was read.
        classes, text_embeds: that are asked for, and [Q, D] their words.
        scale: factor on cosines before a softmax.
        device: where it will be asked.
        chosen: hyper-parameters of the step "memory".
        placed: it will be asked about whole images, and not about one window after the other.

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
    images = [_labelled(one, columns, classes, text_embeds, scale, device) for one in bank.images]
    if not any(bool(one.shares.sum() > 0) for one in images):
        raise RunError(
            f"no pixel of {bank.folder} shows one of these classes", hint="correct an image that does"
        )
    classifier = chosen.get("classifier", NETWORK)
    if classifier == RNS:
        rows = Retrieval(images, text_embeds, classes.query_to_class, chosen.get("steps", STEPS))
        everything = torch.ones_like(rows.known)  # its classifier speaks of all classes by itself
        facts = _facts(bank, images, classes, rows.known, classifier)
        return Recall(
            rows.read, rows.judge, everything, 0.0, torch.zeros_like(everything, dtype=torch.float), facts
        )
    taught = learn(images, placed=placed)
    facts = _facts(bank, images, classes, taught.known, classifier)
    facts |= {"sharpness": taught.sharpness, "trust": taught.trust}
    return Recall(taught.read, taught.judge, taught.known, taught.trust, taught.caution, facts)


def _facts(
    bank: Bank, images: Sequence[Labelled], classes: ClassList, known: Tensor, classifier: str
) -> dict[str, object]:
    """For the record beside results."""
    words = [name for name, there in zip(classes.names, known.tolist(), strict=True) if not there]
    return {
        "fingerprint": bank.facts.fingerprint,
        "classifier": classifier,
        "images": len(images),
        "classes": int(known.sum()),
        "only_words": words,
    }


def _labelled(
    image: Mapping[str, Tensor],
    columns: list[int],
    classes: ClassList,
    text_embeds: Tensor,
    scale: float,
    device: torch.device,
) -> Labelled:
    levels = Packed(image["levels"].to(device), image["scale"].to(device))
    shares = image["shares"].to(device).float() / 255  # [V, C of the bank, h, w]
    own = shares.new_zeros(len(shares), len(columns), *shares.shape[2:])
    for c, column in enumerate(columns):
        if column >= 0:
            own[:, c] = shares[:, column]
    # The last level lives in the space of the words.
    features = torch.stack([levels.view(v)[-text_embeds.shape[1] :] for v in range(len(shares))])
    cosines = cosine_logits(features, text_embeds).movedim(1, 0)  # [Q, V, h, w]
    words = word_log_probabilities(cosines, classes.query_to_class, scale)
    return Labelled(levels, own, words.movedim(0, 1))
