"""What there is to learn: images, classes and who labels, from a pseudo-label run or from a data set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import OF_A_CLIP, PLAIN_BACKGROUND, TrainConfig
from clipseg_cli.data.prompts import load_templates
from clipseg_cli.errors import ClipsegError, RunError, UsageError
from clipseg_cli.inference.auxiliary import maps_by_name
from clipseg_cli.inference.dataset import list_hash, open_data, unseen_ids
from clipseg_cli.outputs import class_table_rows
from clipseg_cli.runs.find import GOES_ON, options_of_run
from clipseg_cli.runs.identity import templates_hash
from clipseg_cli.runs.manifest import FILE, read_manifest
from clipseg_cli.runs.summary import LABELS, label_path
from clipseg_cli.training.human import held_out_images, human_hand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipseg_cli.config import Protocol
    from clipseg_cli.runs.manifest import Manifest
    from clipseg_cli.types import ClassList, Dataset, Sample

_OF_THE_RUN = ("dataset", "benchmark", "classes", "background", *OF_A_CLIP)
"""Options that a run was made with and that hold for what is learnt from it."""

LISTED = 3


@dataclass(frozen=True)
class TrainingTask:
    """What a student is to learn, before any network is loaded.

    Attributes:
        config: with the options of the run that it learns from, where there is one.
        dataset: of the training images.
        samples: those that have labels, or may get them; without ground truth in the annotation-free setting.
        unseen: ids of the classes whose ground truth may not be known.
        unlabelled: ids of the classes that the teacher or the student itself may give; none in the supervised
            setting.
        run: folder whose labels are learnt; None where a teacher labels, or nobody.
        teacher: name, pretrained and fingerprint of the CLIP as the run says; None where it is loaded.
        templates: sentences around each word.
        protocol: of the teacher.
        validation: images with ground truth to score the student on; None without any.
        notes: what a user should be told once.
        human: those of the images whose labels a human answers for -> fingerprint of the label.
        learns_background: an embedding of it is learnt in place of its words.
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
    human: Mapping[str, str] = field(default_factory=dict)
    learns_background: bool = True

    @property
    def classes(self) -> ClassList:
        """Of the student: one word for a background that it learns, else all words of it."""
        classes = self.dataset.classes
        return classes.with_background_word(PLAIN_BACKGROUND) if self.learns_background else classes


def open_task(config: TrainConfig) -> TrainingTask:
    """Find images and labels, and check that they belong together.

    Args:
        config: `labels` names the run, or `teacher` or the setting "supervised" does without one.

    Raises:
        ClipsegError: anything wrong with options, run or data set.
    """
    check_sources(config)
    return _from_run(config) if config.labels else _from_dataset(config)


def check_sources(config: TrainConfig) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: they do.
    """
    supervised, zero_shot = config.setting == "supervised", config.setting == "zero-shot"
    labelled = config.labels or config.teacher or supervised or (zero_shot and config.guided == 0)
    or_else = "--setting supervised to learn from the ground truth"
    if zero_shot:
        or_else = "--guided 0 to learn from seen classes and the student itself"
    contradictions = (
        (
            supervised and (config.labels or config.teacher),
            "--setting supervised learns from the ground truth and from no labels of a model",
            "leave out --labels and --teacher",
        ),
        (
            config.labels and config.teacher,
            "--labels and --teacher both say who labels",
            "--labels RUN reads what was written, --teacher labels each crop anew",
        ),
        (
            config.teacher and maps_by_name(config),
            f"maps of {maps_by_name(config)} are of whole images, and --teacher labels crops",
            "label whole images with clipseg pseudolabel, and learn from that run",
        ),
        (
            supervised and config.targets == "features",
            "--setting supervised learns from the ground truth, --targets features from a CLIP",
            "leave out one of them",
        ),
        (
            config.distill != TrainConfig.distill and config.targets != "features",
            "--distill weighs the distance of features, and labels are learnt",
            "add --targets features, or leave out --distill",
        ),
        (
            config.targets == "features" and not config.teacher,
            "a run holds labels and no features",
            "add --teacher to --targets features",
        ),
        (
            config.unseen and not zero_shot,
            "--unseen says which classes have no ground truth, but none is used",
            "add --setting zero-shot",
        ),
        (
            not config.labels and not config.dataset,
            "nothing says which images to learn from",
            "name a data set with --dataset ROOT",
        ),
        (
            config.labels and config.dataset,
            "--labels brings its own data set",
            "leave out --dataset or --labels",
        ),
        (not labelled, "nothing says who labels the images", f"add --teacher, or {or_else}"),
    )
    for contradicts, message, hint in contradictions:
        if contradicts:
            raise UsageError(message, hint=hint)


def _from_dataset(config: TrainConfig) -> TrainingTask:
    """Images of a data set, which a teacher labels, or whose ground truth is learnt."""
    free = config.setting == "annotation-free"
    dataset, protocol = open_data(config, "label")
    if not free:  # the same images, but now all of them must have their ground truth
        dataset, protocol = open_data(dataclasses.replace(config, split=dataset.split or "all"), "score")
    unseen = unseen_ids(dataset, config.unseen)
    if config.setting == "zero-shot" and not unseen:
        raise UsageError(
            "--setting zero-shot needs to know which classes are unseen",
            hint="name them, as in --unseen sofa,train" + (", or --unseen preset" if dataset.unseen else ""),
        )
    validation, why_not = _validation(config, dataset)
    return TrainingTask(
        config=config,
        dataset=dataset,
        samples=_without_truth(dataset.samples) if free else dataset.samples,
        unseen=unseen,
        unlabelled=tuple(range(len(dataset.classes))) if free else unseen,
        run=None,
        teacher=None,
        templates=_templates(config, protocol),
        protocol=protocol,
        validation=validation,
        notes=(*dataset.notes, *why_not),
    )


def _from_run(config: TrainConfig) -> TrainingTask:
    """Images of a pseudo-label run, with its labels."""
    folder = Path(config.labels)
    manifest = _complete_manifest(folder)
    identity = manifest.identity
    keeps = identity["options"]["keep_labels"] == "seen"
    _check_setting(config, folder, keeps=keeps)
    own = {key: value for key, value in options_of_run(manifest).items() if key in _OF_THE_RUN}
    own["split"] = identity["dataset"]["split"] or None
    _check_options(config, own, folder)
    config = dataclasses.replace(config, **own)
    if not Path(config.dataset).is_dir():
        raise RunError(
            f"the data set of {folder} is no longer at {config.dataset}",
            hint="put it back, or label it again where it is now",
        )
    dataset, protocol = open_data(config, "score" if keeps else "label")
    _check_same(folder, manifest, dataset)
    unseen = unseen_ids(dataset, ",".join(identity["options"]["unseen"])) if keeps else ()
    if config.unseen and unseen_ids(dataset, config.unseen) != unseen:
        names = ", ".join(dataset.classes.names[i] for i in unseen)
        raise RunError(f"{folder} was made with the unseen classes {names}", hint="leave out --unseen")
    hand = human_hand(folder, keeps=keeps)
    labelled = tuple(s for s in dataset.samples if label_path(folder, s).is_file())
    samples = tuple(s for s in labelled if s.source.name not in hand.held_out)
    if not samples:
        raise RunError(
            f"{folder / LABELS} holds no labels", hint="label the data set again, with another --name"
        )
    notes = list(dataset.notes)
    notes += hand.notes(config.human_weight)
    if lacking := len(dataset.samples) - len(labelled):
        have = "image has" if lacking == 1 else "images have"
        notes.append(f"{lacking} {have} no label in {folder} and cannot be learnt from")
    templates = _templates(config, protocol)
    if templates_hash(templates) != identity["templates"]["sha256"]:
        raise RunError(
            f"the templates of {folder} ({config.templates or protocol.templates}) have changed since",
            hint="put the file back, or label the data set again",
        )
    validation, why_not = _validation(config, dataset)
    if validation is None and hand.held_out:
        validation, why_not = held_out_images(folder, dataset, hand.held_out), ()
    return TrainingTask(
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
        human=hand.learnt,
    )


def _templates(config: TrainConfig, protocol: Protocol) -> tuple[str, ...]:
    return load_templates(protocol.templates if config.templates is None else config.templates)


def _without_truth(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The same samples without the paths of their ground truth, so that it cannot be opened even by mistake."""
    return tuple(dataclasses.replace(sample, label=None) for sample in samples)


def _validation(config: TrainConfig, dataset: Dataset) -> tuple[Dataset | None, tuple[str, ...]]:
    """The split to score on, under the same classes; or None. And what should be said about it."""
    where = dataset.address or str(dataset.root)
    same = dataclasses.replace(config, dataset=where, benchmark=dataset.benchmark, split=None)
    try:
        scored, _ = open_data(same, "score")
    except ClipsegError as error:
        return None, (f"no validation on the way: {error.message}",)
    learnt = {sample.source for sample in dataset.samples}
    both = sum(sample.source in learnt for sample in scored.samples)
    if both:
        are = "is" if both == 1 else "are"
        return scored, (f"{both} of {len(scored.samples)} images to score on {are} also learnt from",)
    return scored, ()


def _complete_manifest(folder: Path) -> Manifest:
    """What a finished pseudo-label run was made with."""
    manifest = read_manifest(folder)
    if manifest is None:
        what = f"{folder} is not a run: it has no {FILE}" if folder.exists() else f"{folder}: no such folder"
        raise RunError(what, hint="make one with clipseg pseudolabel DATASET")
    if manifest.identity.get("kind") != "pseudolabel":
        raise RunError(
            f"{folder} is a run of clipseg {manifest.identity.get('kind')}, and holds no labels",
            hint="name one of clipseg pseudolabel",
        )
    if not manifest.complete:
        raise RunError(f"{folder} is not finished", hint=GOES_ON)
    return manifest


def _check_setting(config: TrainConfig, folder: Path, *, keeps: bool) -> None:
    """Only the zero-shot setting learns from ground truth, and the run must have kept some for it."""
    zero_shot = config.setting == "zero-shot"
    if keeps and not zero_shot:
        raise RunError(
            f"{folder} keeps the ground truth of seen classes, so learning from it is not annotation-free",
            hint="add --setting zero-shot, or label without --keep-labels seen",
        )
    if zero_shot and not keeps:
        raise RunError(
            f"{folder} holds no ground truth of seen classes",
            hint="label with --keep-labels seen --unseen NAMES, or use --teacher --dataset ROOT --unseen NAMES",
        )


def _check_options(config: TrainConfig, own: Mapping[str, Any], folder: Path) -> None:
    """What a run was made with holds; another value of the user's would have no effect."""
    for name, value in own.items():
        given = getattr(config, name)
        if given not in (value, getattr(TrainConfig, name)):
            option = f"--{name.replace('_', '-')}"
            made_with = "not given" if value in (None, "") else value
            raise UsageError(
                f"{option} {given} does not fit {folder}, made with {made_with}",
                hint=f"leave out {option}: the labels bring their own",
            )


def _check_same(folder: Path, manifest: Manifest, dataset: Dataset) -> None:
    """The data set must still be the one that was labelled: classes, words and images."""
    labelled = [(row["name"], row["words"]) for row in manifest.identity["classes"]]
    now = [(row["name"], row["words"]) for row in class_table_rows(dataset.classes)]
    if labelled != now:
        only = [name for name, words in labelled if (name, words) not in now] or [n for n, _ in labelled]
        raise RunError(
            f"{folder} labels {len(labelled)} classes and {dataset.root} has {len(now)}: "
            f"{', '.join(only[:LISTED])} {'is' if len(only) == 1 else 'are'} not the same in both",
            hint="label the data set again",
        )
    was = manifest.identity["dataset"]
    if was["images_sha256"] != list_hash(dataset.samples):
        raise RunError(
            f"{folder} labels {was['images']} images, and {dataset.root} now lists others ({len(dataset.samples)})",
            hint="the clipseg pseudolabel command that made it takes up what has changed",
        )
