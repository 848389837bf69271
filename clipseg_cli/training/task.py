"""What there is to learn: pictures, classes and who labels, from a pseudo-label run or from a data set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import OF_A_CLIP, PLAIN_BACKGROUND, TrainConfig
from clipseg_cli.data.prompts import load_templates
from clipseg_cli.errors import ClipsegError, RunError, UsageError
from clipseg_cli.inference.dataset import open_data, unseen_ids
from clipseg_cli.runs.find import options_of_run
from clipseg_cli.runs.identity import templates_hash
from clipseg_cli.runs.summary import LABELS, label_path
from clipseg_cli.training.checks import (
    check_options,
    check_same,
    check_setting,
    check_sources,
    check_unseen,
    complete_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipseg_cli.config import Protocol
    from clipseg_cli.types import ClassList, Dataset, Sample

_OF_THE_RUN = ("dataset", "benchmark", "classes", "background", *OF_A_CLIP)
"""Options that a run was made with and that hold for what is learnt from it."""


@dataclass(frozen=True)
class Lesson:
    """What a student is to learn, before any network is loaded.

    Attributes:
        config: with the options of the run that it learns from, where there is one.
        dataset: of the training pictures.
        samples: those that have labels, or may get them; without ground truth in the annotation-free setting.
        unseen: ids of the classes whose ground truth may not be known.
        unlabelled: ids of the classes that the teacher or the student itself may give; none in the supervised
            setting.
        run: folder whose labels are learnt; None where a teacher labels, or nobody.
        teacher: name, pretrained and fingerprint of the CLIP as the run says; None where it is loaded.
        templates: sentences around each word.
        protocol: of the teacher.
        validation: pictures with ground truth to score the student on; None without any.
        notes: what a user should be told once.
    """

    config: TrainConfig
    dataset: Dataset
    samples: tuple[Sample, ...]
    unseen: tuple[int, ...]
    unlabelled: tuple[int, ...]
    run: Path | None
    teacher: Mapping[str, Any] | None
    templates: tuple[str, ...]
    protocol: Protocol
    validation: Dataset | None
    notes: tuple[str, ...]

    @property
    def classes(self) -> ClassList:
        """Of the student: one word for the background, which it learns."""
        return self.dataset.classes.with_background_word(PLAIN_BACKGROUND)


def open_lesson(config: TrainConfig) -> Lesson:
    """Find pictures and labels, and check that they belong together.

    Args:
        config: `labels` names the run, or `teacher` or the setting "supervised" does without one.

    Raises:
        ClipsegError: anything wrong with options, run or data set.
    """
    check_sources(config)
    return _from_run(config) if config.labels else _from_dataset(config)


def _from_dataset(config: TrainConfig) -> Lesson:
    """Pictures of a data set, which a teacher labels, or whose ground truth is learnt."""
    free = config.setting == "annotation-free"
    dataset, protocol = open_data(config, "label")
    if not free:  # the same pictures, but now all of them must have their ground truth
        dataset, protocol = open_data(dataclasses.replace(config, split=dataset.split or "all"), "score")
    unseen = unseen_ids(dataset, config.unseen)
    if config.setting == "zero-shot" and not unseen:
        raise UsageError(
            "--setting zero-shot needs to know which classes are unseen",
            hint="name them, as in --unseen sofa,train" + (", or --unseen preset" if dataset.unseen else ""),
        )
    templates = load_templates(protocol.templates if config.templates is None else config.templates)
    everything = tuple(range(len(dataset.classes)))
    validation, why_not = _validation(config, dataset)
    return Lesson(
        config=config,
        dataset=dataset,
        samples=_without_truth(dataset.samples) if free else dataset.samples,
        unseen=unseen,
        unlabelled=everything if free else unseen,
        run=None,
        teacher=None,
        templates=templates,
        protocol=protocol,
        validation=validation,
        notes=(*dataset.notes, *why_not),
    )


def _from_run(config: TrainConfig) -> Lesson:
    """Pictures of a pseudo-label run, with its labels.

    Raises:
        ClipsegError: no such run, an unfinished one, one without labels, or one of other pictures or classes.
    """
    folder = Path(config.labels)
    manifest = complete_manifest(folder)
    identity = manifest.identity
    options = options_of_run(manifest)
    keeps = identity["options"]["keep_labels"] == "seen"
    check_setting(config, folder, keeps=keeps)
    own = {key: value for key, value in options.items() if key in _OF_THE_RUN}
    own["split"] = identity["dataset"]["split"] or None
    check_options(config, own, folder)
    config = dataclasses.replace(config, **own)
    if not Path(config.dataset).is_dir():
        raise RunError(
            f"the data set of {folder} is no longer at {config.dataset}",
            hint="put it back, or label it again where it is now",
        )
    dataset, protocol = open_data(config, "score" if keeps else "label")
    check_same(folder, manifest, dataset)
    unseen = unseen_ids(dataset, ",".join(identity["options"]["unseen"])) if keeps else ()
    check_unseen(config, dataset, unseen, folder)
    samples = tuple(s for s in dataset.samples if label_path(folder, s).is_file())
    if not samples:
        raise RunError(
            f"{folder / LABELS} holds no labels", hint="label the data set again, with another --name"
        )
    notes = list(dataset.notes)
    if lacking := len(dataset.samples) - len(samples):
        have = "image has" if lacking == 1 else "images have"
        notes.append(f"{lacking} {have} no label in {folder} and cannot be learnt from")
    templates = load_templates(protocol.templates if config.templates is None else config.templates)
    if templates_hash(templates) != identity["templates"]["sha256"]:
        raise RunError(
            f"the templates of {folder} ({config.templates or protocol.templates}) have changed since",
            hint="put the file back, or label the data set again",
        )
    validation, why_not = _validation(config, dataset)
    return Lesson(
        config=config,
        dataset=dataset,
        samples=_without_truth(samples),
        unseen=unseen,
        unlabelled=unseen or tuple(range(len(dataset.classes))),
        run=folder,
        teacher={key: identity["model"][key] for key in ("name", "pretrained", "fingerprint")},
        templates=templates,
        protocol=protocol,
        validation=validation,
        notes=(*notes, *why_not),
    )


def _without_truth(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """So that no ground truth can be opened, even by mistake."""
    return tuple(dataclasses.replace(sample, label=None) for sample in samples)


def _validation(config: TrainConfig, dataset: Dataset) -> tuple[Dataset | None, tuple[str, ...]]:
    """The split to score on, under the same classes; or None. And what should be said about it."""
    same = dataclasses.replace(config, dataset=str(dataset.root), benchmark=dataset.benchmark, split=None)
    try:
        found, _ = open_data(same, "score")
    except ClipsegError as error:
        return None, (f"no validation on the way: {error.message}",)
    learnt = {sample.source for sample in dataset.samples}
    both = sum(sample.source in learnt for sample in found.samples)
    if both:
        are = "is" if both == 1 else "are"
        return found, (f"{both} of {len(found.samples)} images to score on {are} also learnt from",)
    return found, ()
