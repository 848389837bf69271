"""What a run takes up since it was begun: images that came, went or changed, and words behind those that it had.

Nothing of it renames an id. Each change is made so that a process that is killed at any file leaves a run that is not
complete, and that the same command takes up again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clipseg_cli.errors import RunError
from clipseg_cli.outputs import json_safe
from clipseg_cli.runs.batches import keep_batches
from clipseg_cli.runs.folder import STATE_LOCK
from clipseg_cli.runs.manifest import Manifest, differences, read_manifest, write_manifest
from clipseg_cli.runs.records import (
    FINAL,
    WORKERS,
    ImageRecord,
    ProgressFile,
    forget_records,
    read_records,
    read_removed,
    write_removed,
)
from clipseg_cli.runs.state import RunState, label_state
from clipseg_cli.utils.locks import file_lock
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from clipseg_cli.types import Dataset
    from clipseg_cli.utils.distributed import Share

SHOWN = 3
"""Names in a sentence."""

_OF_THE_LIST = ("images", "images_sha256")
_ANOTHER_LIST = "labelled with fewer classes, and not in the data set since"


@dataclass(frozen=True)
class Growth:
    """How a run differs from what is asked of it now, where that is something it can take up.

    Attributes:
        images: how many it had; None where the list is the same.
        new: images without a label yet, of another list.
        removed: images with a label that are in the list no more.
        words: names of new classes, behind those that it had.
        back: images that had left the list and are in it again, with the labels that they had.
    """

    images: int | None = None
    new: Sequence[str] = ()
    removed: Sequence[str] = ()
    words: Sequence[str] = ()
    back: Mapping[str, ImageRecord] = field(default_factory=dict)

    def image_entry(self, dataset: Dataset) -> dict[str, Any]:
        """Which images came and went, for the history in the manifest."""
        return {
            "changed": "images",
            "before": self.images,
            "now": len(dataset.samples),
            "new": list(self.new),
            "removed": list(self.removed),
        }

    def class_entry(self, dataset: Dataset) -> dict[str, Any]:
        """Which classes came, for the history in the manifest."""
        now = len(dataset.classes)
        return {"changed": "classes", "before": now - len(self.words), "now": now, "new": list(self.words)}

    def sentences(self) -> Iterator[str]:
        """What a user should be told."""
        if self.words:
            yield f"the class list has grown by {listed(self.words, SHOWN)}; all ids stay as they were"
        if self.images is None:
            return
        if self.new:
            yield f"the data set has {_images(self.new)} that this run has not labelled yet"
        if self.removed:
            rest = "its label stays" if len(self.removed) == 1 else "their labels stay"
            gone = "is no longer" if len(self.removed) == 1 else "are no longer"
            yield f"{_images(self.removed)} {gone} in the data set: {rest} in the folder, and in no list and count"
        if self.back:
            yield f"{_images(list(self.back))} came back to the data set, with the labels that are here"
        if not (self.new or self.removed or self.back):
            yield "the images of the data set are in another order"


def take_up(
    folder: Path, dataset: Dataset, identity: Mapping[str, Any], share: Share, batch_size: int
) -> Growth | None:
    """Make a run one of the data set and the class list as they are now.

    Args:
        folder: of the run, held by this process.
        dataset: as it is now.
        identity: of what is asked for now.
        share: of this process.
        batch_size: windows in one forward pass.

    Returns:
        None where there is no run yet, nothing has changed, or other options differ too (which `begin_run` refuses).

    Raises:
        RunError: several processes share the run: only one that has it alone may change what the others work on.
        ClipsegError: a label, the manifest or `human.jsonl` is damaged, or a file cannot be written.
    """
    with file_lock(folder / STATE_LOCK, wait=True):
        before = read_manifest(folder)
        if before is None or not _may_grow(before.identity, identity):
            return None
        growth = _growth(folder, before, dataset, identity)
        if share.count > 1:
            what = "classes" if growth.words else "images"
            raise RunError(
                f"{folder} was begun with other {what}: {'; '.join(growth.sentences())}",
                hint="the same command, once, in one process (without --shard or torchrun) takes them up",
            )
        now, history = {**before.identity}, list(before.history)
        write_manifest(Manifest(now, history=history), folder)  # not complete meanwhile
        if growth.images is not None:
            _change_images(folder, growth, dataset, batch_size)
            now["dataset"] = identity["dataset"]
            history.append(growth.image_entry(dataset))
            write_manifest(
                Manifest(now, history=history), folder
            )  # before the records go that tell images apart
        if growth.words:
            _forget_labels(folder, dataset)
            history.append(growth.class_entry(dataset))
        write_manifest(Manifest(identity, history=history), folder)
    return growth


def _may_grow(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two identities differ, and in nothing but the list of images and classes behind those there were."""
    if not differences(before, now):
        return False
    before, now = json_safe(before), json_safe(now)
    if before.get("kind") != now["kind"] or new_classes(before, now) is None:
        return False
    return not differences(_without_lists(before), _without_lists(now))


def new_classes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str] | None:
    """Names of the classes that an identity has behind those of another; None where their lists do not agree so far.

    The background may have lost words to classes that are named by themselves now.
    """
    there, here, background = before["classes"], now["classes"], now["background"]
    if len(here) < len(there):
        return None
    taken = {word for row in here[len(there) :] for word in row["words"]}
    for old, new in zip(there, here, strict=False):
        words = [word for word in old["words"] if new["id"] != background or word not in taken]
        if old["name"] != new["name"] or words != new["words"]:
            return None
    return [row["name"] for row in here[len(there) :]]


def _without_lists(identity: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in identity["options"].items() if key != "classes"}
    dataset = {key: value for key, value in identity["dataset"].items() if key not in _OF_THE_LIST}
    return {**identity, "options": options, "dataset": dataset, "classes": None}


def _growth(folder: Path, before: Manifest, dataset: Dataset, identity: Mapping[str, Any]) -> Growth:
    words = new_classes(before.identity, json_safe(identity)) or []
    was = before.identity["dataset"]
    if was["images_sha256"] == identity["dataset"]["images_sha256"]:
        return Growth(words=words)
    known = read_records(folder)
    left = {name: record for name, record in read_removed(folder).items() if not record.error}
    names = [sample.source.name for sample in dataset.samples]
    here = set(names)
    return Growth(
        was["images"],
        [name for name in names if name not in known and name not in left],
        [name for name, record in known.items() if name not in here and not record.error],
        words,
        {name: left[name] for name in names if name in left and name not in known},
    )


def _change_images(folder: Path, growth: Growth, dataset: Dataset, batch_size: int) -> None:
    """Sort the records: those of images in the list, and those of images that have left it."""
    progress = ProgressFile(folder)
    try:
        progress.add(list(growth.back.values()))
    finally:
        progress.close()
    known, here = read_records(folder), {sample.source.name for sample in dataset.samples}
    gone = {name: record for name, record in (read_removed(folder) | known).items() if name not in here}
    write_removed(gone, folder)
    batches = {name: record.group for name, record in known.items()}
    keep_batches(folder, dataset.samples, batch_size, batches, growth.images or 0)


def _forget_labels(folder: Path, dataset: Dataset) -> None:
    """Strike out all labels but those that somebody has corrected: they were made without the new words."""
    state = RunState(folder, dataset)
    known = state.records()
    left = read_removed(folder)
    for name, record in left.items():
        edited = not record.error and label_state(folder, record, len(dataset.classes)) == "changed"
        if not edited and name not in state.human:
            left[name] = ImageRecord(name, record.group, error=_ANOTHER_LIST)
    write_removed(left, folder)
    files = [folder / FINAL, *sorted(folder.glob(WORKERS))]
    forget_records(files, (known.keys() | read_records(folder).keys()) - state.corrected.keys())


def _images(names: Sequence[str]) -> str:
    """As in "1 image (x)" or "3 images (x, y, z)"."""
    return f"{len(names):,} image{'' if len(names) == 1 else 's'} ({listed(names, SHOWN)})"
