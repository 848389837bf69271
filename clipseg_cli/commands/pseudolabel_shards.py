"""`clipseg pseudolabel` by shards: tars, and anything with `--engine ray`."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clipseg_cli.commands.convert import KEPT, check_formats_of_a_run, conversion_of_a_run
from clipseg_cli.commands.shards.into_folder import FolderOutput
from clipseg_cli.commands.shards.into_tars import TarOutput
from clipseg_cli.commands.shards.local import local_engine
from clipseg_cli.commands.shards.ray import ray_engine
from clipseg_cli.commands.shards.shard import ShardJob, digest
from clipseg_cli.config import InferenceConfig
from clipseg_cli.data.addresses import is_address, is_in_memory, without_scheme
from clipseg_cli.data.classes import load_classes
from clipseg_cli.data.tars import find_tars, is_tars
from clipseg_cli.errors import DatasetError, UsageError
from clipseg_cli.inference.dataset import open_to_label
from clipseg_cli.outputs import format_names
from clipseg_cli.runs.folder import STATE_LOCK, default_name, lock_run, run_folder
from clipseg_cli.runs.human_changes import complete_changes
from clipseg_cli.runs.manifest import read_manifest
from clipseg_cli.runs.summary import LABELS
from clipseg_cli.types import Dataset
from clipseg_cli.utils.distributed import Share, process_share
from clipseg_cli.utils.locks import file_lock

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from clipseg_cli.commands.convert import Conversion
    from clipseg_cli.commands.shards.shard import Engine, ShardResult
    from clipseg_cli.config import PseudolabelConfig
    from clipseg_cli.data.tars import Tar
    from clipseg_cli.runs.records import ImageRecord
    from clipseg_cli.runs.summary import Summary

RAY = "ray"


@contextmanager
def open_sharded_run(config: PseudolabelConfig) -> Iterator[ShardedRun]:
    """Check every option, take the run folder, have the workers load the model.

    Raises:
        ClipsegError: anything wrong with options, source, run folder, cluster or model.
    """
    _check_alone(config)
    tars = find_tars(config.dataset) if is_tars(config.dataset) else None
    dataset, unseen = (_data_of_tars(config), ()) if tars is not None else _data(config)
    _check_reach(config, dataset)
    folder = config.out / (config.name or default_name(config, dataset))
    with ExitStack() as stack:
        stack.enter_context(run_folder(folder, dataset, () if tars is not None else (LABELS,)))
        left_by = stack.enter_context(lock_run(folder, Share()))
        read_manifest(folder)  # a damaged one is refused before the model is loaded
        if tars is None:
            with file_lock(folder / STATE_LOCK, wait=True):
                complete_changes(folder, locked=True)
        job = ShardJob(config, dataclasses.replace(dataset, samples=()), unseen)
        engine = (
            stack.enter_context(ray_engine(job, config.actors)) if config.engine == RAY else local_engine(job)
        )
        identity = engine.description.identity
        output = (
            FolderOutput(config, dataset, folder, identity)
            if tars is None
            else TarOutput(config, dataset, tars, folder, identity)
        )
        notes = [*dataset.notes, *engine.description.notes, *engine.notes, *output.notes]
        if left_by:
            notes.append(f"{left_by} left this run unfinished; going on where it was")
        run = ShardedRun(config, dataset, engine, output, folder, tars, notes=tuple(notes))
        stack.callback(output.close)
        yield run


@dataclass(eq=False)
class ShardedRun:
    """A run in progress; iterating it labels what is left and yields each shard with the records of its images.

    Attributes:
        config: the options.
        dataset: what is labelled; of tars only the classes.
        engine: the workers.
        output: what is written.
        folder: of the run.
        tars: that are labelled; None for a data set.
        share: all of it.
        notes: what a user should be told once.
        done: images that were dealt with.
        failures: image or shard -> why it has no label.
    """

    config: PseudolabelConfig
    dataset: Dataset
    engine: Engine
    output: FolderOutput | TarOutput
    folder: Path
    tars: list[Tar] | None
    share: Share = field(default_factory=Share)
    notes: tuple[str, ...] = ()
    done: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """For people."""
        return self.engine.description.model

    def __iter__(self) -> Generator[tuple[ShardResult, list[ImageRecord]], None, None]:
        """Shards as they are finished; one with an `error` has no records.

        Raises:
            ClipsegError: a shard cannot be written, or the cluster was lost.
        """
        if not self.output.shards:
            return
        self.output.begin()
        expected = digest(self.engine.description.identity)
        for result in self.engine.label(self.output.shards):
            if not result.error and result.made_by != expected:
                error = (
                    f"{result.shard}: {result.place} has another model, device or versions than the others"
                )
                hint = "install the same on each machine; the same command labels the shard again"
                result = dataclasses.replace(result, error=error, hint=hint)
            if result.error:
                self.failures[result.shard] = result.error
                yield result, []
                continue
            records = self.output.take(result)
            self.done += len(records)
            self.failures.update({record.image: record.error for record in records if record.error})
            yield result, records

    def finish(self) -> Summary | None:
        """Write what describes the whole run; None where shards of it are missing.

        Raises:
            ClipsegError: it cannot be written.
        """
        return self.output.finish()

    def doubles(self) -> list[str]:
        """A sentence for each image that two tars hold."""
        return list(self.output.doubles()) if isinstance(self.output, TarOutput) else []

    def conversion(self) -> Conversion | None:
        """What writes the formats that were asked for beside the label maps, once the run is complete."""
        return None if self.tars is not None else conversion_of_a_run(self.config, self.folder)


def _check_alone(config: PseudolabelConfig) -> None:
    """Shards are handed out by one process, and leave labels only.

    Raises:
        UsageError: torchrun or --shard divide the work as well, or features are to be kept.
    """
    if config.keep_features:
        raise UsageError(
            "--keep-features keeps what one process read, and shards are labelled by several",
            hint="leave out --keep-features, or label a folder without --engine ray",
        )
    if process_share(config.shard).count > 1:
        what = (
            "--engine ray shares out the work itself" if config.engine == RAY else "tars are not shared out"
        )
        raise UsageError(
            f"{what}, and torchrun or --shard does as well", hint="leave that out, and say --engine ray"
        )


def _check_reach(config: PseudolabelConfig, dataset: Dataset) -> None:
    """Workers on other machines, or in other processes, must reach the images.

    Raises:
        UsageError: they are in the memory of this process.
    """
    sources = (str(sample.source) for sample in dataset.samples)
    if config.engine == RAY and any(map(is_in_memory, (config.dataset, *sources))):
        raise UsageError(
            f"{config.dataset}: memory:// is this process's own, and no worker of Ray can read it",
            hint="leave out --engine ray",
        )


def _data(config: PseudolabelConfig) -> tuple[Dataset, tuple[int, ...]]:
    """The data set, and the ids of the classes to fill."""
    dataset, _, unseen = open_to_label(config)
    check_formats_of_a_run(config)
    return dataset, unseen


def _data_of_tars(config: PseudolabelConfig) -> Dataset:
    """The classes of a source that is listed by nobody.

    Raises:
        ClipsegError: options that need a data set, or no classes.
    """
    source = without_scheme(config.dataset)
    given = {
        "--benchmark": config.benchmark,
        "--split": config.split,
        "--unseen": config.unseen,
        "--keep-labels": config.keep_labels != "none",
        "--formats": [name for name in format_names(config.format_texts) if name != KEPT],
    }
    for flag, value in given.items():
        if value:
            raise UsageError(
                f"{flag} needs a data set on the disk, and {source} are tars", hint=f"leave out {flag}"
            )
    if not config.classes:
        raise DatasetError(
            f"{source}: nothing names the classes of these images", hint="add --classes cat,dog"
        )
    background = InferenceConfig.background if config.background == "auto" else config.background
    return Dataset(
        name="tars",
        title="WebDataset tars",
        root=Path(source),
        benchmark=None,
        split="",
        classes=load_classes(config.classes, background=background),
        samples=(),
        address=source if is_address(source) else "",
    )


def is_sharded(config: PseudolabelConfig) -> bool:
    """Whether a run goes by shards."""
    return config.engine == RAY or is_tars(config.dataset)
