"""What must agree before anything is learnt: options with each other, a run with its data set and with the options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipseg_cli.config import TrainConfig
from clipseg_cli.errors import RunError, UsageError
from clipseg_cli.inference.auxiliary import maps_by_name
from clipseg_cli.inference.dataset import list_hash, unseen_ids
from clipseg_cli.outputs import class_table_rows
from clipseg_cli.runs.find import GOES_ON
from clipseg_cli.runs.manifest import FILE, read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from clipseg_cli.runs.manifest import Manifest
    from clipseg_cli.types import Dataset

LISTED = 3


def check_sources(config: TrainConfig) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: they do.
    """
    if config.setting == "supervised" and (config.labels or config.teacher):
        raise UsageError(
            "--setting supervised learns from the ground truth and from no labels of a model",
            hint="leave out --labels and --teacher",
        )
    if config.labels and config.teacher:
        raise UsageError(
            "--labels and --teacher both say who labels",
            hint="--labels RUN reads what was written, --teacher labels each crop anew",
        )
    if config.teacher and maps_by_name(config):
        raise UsageError(
            f"maps of {maps_by_name(config)} are of whole pictures, and --teacher labels crops",
            hint="label whole pictures with clipseg pseudolabel, and learn from that run",
        )
    if config.targets == "features" and not config.teacher:
        raise UsageError("a run holds labels and no features", hint="add --teacher to --targets features")
    if config.unseen and config.setting != "zero-shot":
        raise UsageError(
            "--unseen says which classes have no ground truth, but none is used",
            hint="add --setting zero-shot",
        )
    if not config.labels and not config.dataset:
        raise UsageError(
            "nothing says which images to learn from", hint="name a data set with --dataset ROOT"
        )
    if config.labels and config.dataset:
        raise UsageError("--labels brings its own data set", hint="leave out --dataset or --labels")
    taught = config.labels or config.teacher or config.setting == "supervised"
    from_seen = config.setting == "zero-shot" and config.guided == 0
    if not taught and not from_seen:
        other = (
            "--guided 0 to learn from seen classes and the student itself"
            if config.setting == "zero-shot"
            else "--setting supervised to learn from the ground truth"
        )
        raise UsageError("nothing says who labels the images", hint=f"add --teacher, or {other}")


def complete_manifest(folder: Path) -> Manifest:
    """What a finished pseudo-label run was made with.

    Raises:
        RunError: there is none, it is not finished, or it is a run of another command.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        what = (
            f"{folder}: no such folder" if not folder.exists() else f"{folder} is not a run: it has no {FILE}"
        )
        raise RunError(what, hint="make one with clipseg pseudolabel DATASET")
    if manifest.identity.get("kind") != "pseudolabel":
        raise RunError(
            f"{folder} is a run of clipseg {manifest.identity.get('kind')}, and holds no labels",
            hint="name one of clipseg pseudolabel",
        )
    if not manifest.complete:
        raise RunError(f"{folder} is not finished", hint=GOES_ON)
    return manifest


def check_setting(config: TrainConfig, folder: Path, *, keeps: bool) -> None:
    """Only the zero-shot setting learns from ground truth, and it needs some.

    Args:
        config: with the setting.
        folder: of the run.
        keeps: whether its labels hold the ground truth of seen classes.

    Raises:
        RunError: the run was made for another setting.
    """
    if keeps and config.setting != "zero-shot":
        raise RunError(
            f"{folder} keeps the ground truth of seen classes, so learning from it is not annotation-free",
            hint="add --setting zero-shot, or label without --keep-labels seen",
        )
    if config.setting == "zero-shot" and not keeps:
        raise RunError(
            f"{folder} holds no ground truth of seen classes",
            hint="label with --keep-labels seen --unseen NAMES, or use --teacher --dataset ROOT --unseen NAMES",
        )


def check_options(config: TrainConfig, own: Mapping[str, Any], folder: Path) -> None:
    """What a run was made with holds; another value of the user's would have no effect.

    Raises:
        UsageError: the user asked for one.
    """
    for name, value in own.items():
        given = getattr(config, name)
        if given not in (value, getattr(TrainConfig, name)):
            option = f"--{name.replace('_', '-')}"
            made_with = "not given" if value in (None, "") else value
            raise UsageError(
                f"{option} {given} does not fit {folder}, made with {made_with}",
                hint=f"leave out {option}: the labels bring their own",
            )


def check_unseen(config: TrainConfig, dataset: Dataset, unseen: tuple[int, ...], folder: Path) -> None:
    """Classes that are named as unseen must be those of the run.

    Raises:
        RunError: they are others.
        UsageError: a name that is no class.
    """
    if config.unseen and unseen_ids(dataset, config.unseen) != unseen:
        names = ", ".join(dataset.classes.names[i] for i in unseen)
        raise RunError(f"{folder} was made with the unseen classes {names}", hint="leave out --unseen")


def check_same(folder: Path, manifest: Manifest, dataset: Dataset) -> None:
    """The data set must still be the one that was labelled.

    Raises:
        RunError: other classes or words, or other pictures.
    """
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
            hint="label the data set again, with another --name",
        )
