"""Labels of a run that a human has corrected or checked: to learn from with more weight, or to be scored on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipseg_cli.config import TrainConfig
from clipseg_cli.data.datasets import own_label_ids
from clipseg_cli.errors import RunError
from clipseg_cli.runs.human import human_labels
from clipseg_cli.runs.human_changes import complete_changes
from clipseg_cli.runs.summary import label_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set
    from pathlib import Path

    from clipseg_cli.types import Dataset


@dataclass(frozen=True)
class HumanHand:
    """What humans have done to the labels of a run.

    Attributes:
        learnt: image -> fingerprint of its label, of those to learn from.
        held_out: images that are kept out of training.
    """

    learnt: Mapping[str, str]
    held_out: frozenset[str]

    def notes(self, weight: float) -> Iterator[str]:
        """What a user should be told."""
        if own := len(self.learnt):
            are = "label is" if own == 1 else "labels are"
            yield f"{own} {are} by human hand: they hold whatever the student says, and count {weight:g} times"
        elif weight != TrainConfig.human_weight:
            yield f"--human-weight {weight:g} does nothing: no label to learn from is by human hand"
        if held := len(self.held_out):
            yield f"{held} {'image is' if held == 1 else 'images are'} held out of training"


def human_hand(folder: Path, *, keeps: bool) -> HumanHand:
    """The human labels of a run.

    Args:
        folder: of the run.
        keeps: it keeps the ground truth of seen classes, so that nobody may know the labels of the others.

    Raises:
        RunError: somebody knows them; or `human.jsonl` is damaged.
    """
    complete_changes(folder)
    human = human_labels(folder)
    held = frozenset(name for name, record in human.items() if record.hold_out)
    learnt = {name: record.label for name, record in human.items() if name not in held}
    if keeps and learnt:
        raise RunError(
            f"{folder} is for --setting zero-shot, which knows no label of unseen classes, "
            f"but {len(learnt)} are by human hand",
            hint="take them back with clipseg import --undo, or import them with --hold-out",
        )
    return HumanHand(learnt, held)


def held_out_images(folder: Path, dataset: Dataset, held: Set[str]) -> Dataset:
    """The images that were held out, to be scored against the labels of humans.

    Args:
        folder: of the run.
        dataset: whose images they are.
        held: their names.
    """
    samples = tuple(
        dataclasses.replace(sample, label=label_path(folder, sample))
        for sample in dataset.samples
        if sample.source.name in held
    )
    ids = own_label_ids(len(dataset.classes))
    return dataclasses.replace(
        dataset, split="held out", samples=samples, label_ids=ids, labels_are="class ids", notes=()
    )
