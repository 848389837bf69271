"""The folder of a run: its name, who may work in it, and how work in it begins."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clipseg_cli.errors import RunError, UsageError
from clipseg_cli.outputs import safe_name
from clipseg_cli.runs.manifest import FILE as MANIFEST
from clipseg_cli.runs.manifest import Manifest, read_manifest, refuse_changes, write_manifest
from clipseg_cli.runs.records import FINAL, WORKERS, forget_records, progress_path
from clipseg_cli.runs.summary import LABELS
from clipseg_cli.utils.files import check_writable, output_errors
from clipseg_cli.utils.locks import LockedError, file_lock, holder_of, remove_stale_locks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set

    from clipseg_cli.config import PseudolabelConfig
    from clipseg_cli.types import Dataset
    from clipseg_cli.utils.distributed import Share
    from clipseg_cli.utils.locks import Holder

RUN_LOCK, SHARE_LOCKS = ".lock", ".lock-*"
STATE_LOCK = ".turn"
"""Held for a moment by whoever changes what belongs to all shares of a run."""


def default_name(config: PseudolabelConfig, dataset: Dataset) -> str:
    """As in "VOC2012-voc21-train-ViT-B-16": the same command finds its own run again."""
    split = Path(dataset.split).stem
    parts = (dataset.root.resolve().name, dataset.benchmark, split, config.model)
    return "-".join(safe_name(part) for part in parts if part)


@contextmanager
def run_folder(folder: Path, dataset: Dataset, inside: Sequence[str] = (LABELS,)) -> Iterator[None]:
    """Make the run folder; it is removed again where the run does not begin.

    Args:
        folder: of the run.
        dataset: that it works on.
        inside: folders in it that are made at once.

    Raises:
        ClipsegError: it cannot be written, or the data set would take its labels for images.
    """
    if dataset.benchmark is None and folder.resolve().is_relative_to(dataset.root.resolve()):
        raise UsageError(
            f"{folder} lies among the images of {dataset.root}, which would grow by its own labels",
            hint="choose another folder with --out",
        )
    check_writable(folder)
    made = [
        path for path in (*(folder / name for name in inside), folder, *folder.parents) if not path.exists()
    ]
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in inside:
            (folder / name).mkdir(exist_ok=True)
    try:
        yield
    finally:
        if not (folder / MANIFEST).exists():
            for path in made:
                with suppress(OSError):  # something else is in it by now
                    path.rmdir()


@contextmanager
def lock_run(folder: Path, share: Share) -> Iterator[Holder | None]:
    """Lock the run folder: alone, or together with the other shares.

    Yields:
        The process that left it locked and is gone; None where none did.

    Raises:
        RunError: another process works in it; its number is in the message.
    """
    try:
        with ExitStack() as stack:
            left_by = stack.enter_context(file_lock(folder / RUN_LOCK, shared=share.count > 1))
            if share.count > 1:
                own = folder / f"{RUN_LOCK}-{share.index + 1}-of-{share.count}"
                left_by = stack.enter_context(file_lock(own)) or left_by
            else:
                left_by = left_by or next(iter(remove_stale_locks(sorted(folder.glob(SHARE_LOCKS)))), None)
            yield left_by
    except LockedError as error:
        holder = error.holder or next(filter(None, map(holder_of, sorted(folder.glob(SHARE_LOCKS)))), None)
        raise RunError(
            f"{folder} is in use by {holder or 'another process'}",
            hint="wait for it, or choose another folder with --name",
        ) from error


def begin_run(folder: Path, now: Manifest) -> None:
    """Start a run, or make sure that the one that is there was started in the same way.

    Raises:
        RunError: it was not; the message names the first differences.
    """
    with file_lock(folder / STATE_LOCK, wait=True):  # one share begins, and the others find what it has begun
        before = read_manifest(folder)
        if before is None:
            if any((folder / LABELS).iterdir()):
                raise RunError(
                    f"{folder} holds labels but no {MANIFEST}", hint="choose another folder with --name"
                )
            write_manifest(now, folder)
            return
    refuse_changes(folder, before, now.identity)


def begin_images(folder: Path, images: Set[str], worker: str | None) -> None:
    """Say in the folder what is about to be done: the run is not complete, nor are these images.

    Args:
        folder: of the run.
        images: their names.
        worker: whose file of progress it is; None for one who works alone, so that all of them are.

    Raises:
        ClipsegError: the manifest is damaged, or a file cannot be written.
    """
    with file_lock(folder / STATE_LOCK, wait=True):
        before = read_manifest(folder)
        if before is not None and before.complete:
            write_manifest(Manifest(before.identity, history=before.history), folder)
        files = sorted(folder.glob(WORKERS)) if worker is None else [progress_path(folder, worker)]
        forget_records([folder / FINAL, *files], images)
