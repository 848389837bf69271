"""The shards of a data set, a folder or a list, into the run folder that `clipseg pseudolabel` always writes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from clipseg_cli.commands.convert import KEPT
from clipseg_cli.commands.shards.shard import Shard
from clipseg_cli.outputs import format_names
from clipseg_cli.runs.batches import planned_groups
from clipseg_cli.runs.folder import STATE_LOCK, begin_images, begin_run
from clipseg_cli.runs.growth import take_up
from clipseg_cli.runs.identity import dataset_identity
from clipseg_cli.runs.manifest import Manifest
from clipseg_cli.runs.records import ProgressFile
from clipseg_cli.runs.state import RunState
from clipseg_cli.runs.summary import LABELS, finish_run
from clipseg_cli.utils.distributed import Share
from clipseg_cli.utils.files import write_bytes
from clipseg_cli.utils.locks import file_lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from clipseg_cli.commands.shards.shard import ShardResult
    from clipseg_cli.config import PseudolabelConfig
    from clipseg_cli.inference.dataset import Group
    from clipseg_cli.runs.records import ImageRecord
    from clipseg_cli.runs.summary import Summary
    from clipseg_cli.types import Dataset


class FolderOutput:
    """A run folder; either engine goes on with what the other one began.

    Args:
        config: the options.
        dataset: what is labelled.
        folder: of the run; it is held by this process.
        identity: of the workers.

    Attributes:
        shards: what is left to do.
        total, before: images, and how many of them are finished.
        notes: what a user should be told once.

    Raises:
        RunError: the run was made with other options, or a label in it is none.
    """

    def __init__(
        self, config: PseudolabelConfig, dataset: Dataset, folder: Path, identity: Mapping[str, Any]
    ) -> None:
        self.dataset, self.folder = dataset, folder
        self.identity = {**identity, "dataset": dataset_identity(dataset, dataset.samples)}
        growth = take_up(folder, dataset, self.identity, Share(), config.batch_size)
        begin_run(folder, Manifest(self.identity))
        self._state = RunState(folder, dataset)
        finished = self._state.finished(with_confidence=KEPT in format_names(config.format_texts))
        self._corrected = self._state.corrected
        groups = [
            group
            for group in planned_groups(folder, dataset.samples, config.batch_size)
            if not all(sample.source.name in finished for sample in group[1])
        ]
        # Of a group that failed in part, what is labelled stays as long as the rest fails.
        known = finished | self._state.failed
        self._known = {
            sample.source.name: known[sample.source.name]
            for _, samples in groups
            if all(sample.source.name in known for sample in samples)
            for sample in samples
        }
        self.shards = _cut_into_shards(groups, config.shard_size, self._known)
        self.total = len(dataset.samples)
        left = sum(len(shard.samples) for shard in self.shards)
        self.before = self.total - left + sum(not record.error for record in self._known.values())
        self.notes = (*(growth.sentences() if growth else ()), *self._state.sentences())
        self._progress: ProgressFile | None = None

    def begin(self) -> None:
        """Say in the folder what is about to be done.

        Raises:
            OutputError: a file cannot be written.
        """
        images = {sample.source.name for shard in self.shards for sample in shard.samples}
        begin_images(self.folder, images - self._corrected.keys(), None)
        self._progress = ProgressFile(self.folder)

    def take(self, result: ShardResult) -> list[ImageRecord]:
        """Write what a worker labelled, and then that it is there; labels that were corrected stay, or that are known.

        Raises:
            OutputError: it cannot be written.
        """
        assert self._progress is not None
        own = {f"{name}.png" for name in self._corrected}
        for name, data in result.files.items():
            if name not in own:
                write_bytes(self.folder / LABELS / name, data)
        records = [self._with_corrections(record) for record in result.records]
        self._state.written += [record.image for record in records if not record.error]
        kept = [self._known[name] for name in result.kept if name not in self._corrected]
        self._progress.add([*records, *kept])
        return records

    def _with_corrections(self, record: ImageRecord) -> ImageRecord:
        corrected = self._corrected.get(record.image)
        return record if corrected is None else dataclasses.replace(corrected, group=record.group)

    def close(self) -> None:
        """Close the file of progress."""
        if self._progress is not None:
            self._progress.close()

    def finish(self) -> Summary | None:
        """Write what describes the whole run; None where shards of it are missing.

        Raises:
            ClipsegError: labels were removed meanwhile, or it cannot be written.
        """
        self._state.require_labels()
        with file_lock(self.folder / STATE_LOCK, wait=True):
            records = self._state.records()
            if any(sample.source.name not in records for sample in self.dataset.samples):
                return None
            return finish_run(self.folder, self.dataset, self.identity, records)


def _cut_into_shards(groups: Sequence[Group], size: int, known: Mapping[str, ImageRecord]) -> list[Shard]:
    """Whole groups, together about `size` images, with the records that are known of these."""
    parts = list(_chunks(groups, size))
    return [
        Shard(
            f"shard {i} of {len(parts)}",
            tuple(sample for _, samples in part for sample in samples),
            {sample.source.name: number for number, samples in part for sample in samples},
            known={
                sample.source.name: known[sample.source.name]
                for _, samples in part
                for sample in samples
                if sample.source.name in known
            },
        )
        for i, part in enumerate(parts, start=1)
    ]


def _chunks(groups: Sequence[Group], size: int) -> Iterator[list[Group]]:
    part: list[Group] = []
    for group in groups:
        part.append(group)
        if sum(len(samples) for _, samples in part) >= size:
            yield part
            part = []
    if part:
        yield part
