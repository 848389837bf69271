"""The tars of a source into tars of label maps, each of the same name."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from clipseg_cli.commands.convert import KEPT
from clipseg_cli.commands.shards.shard import Shard
from clipseg_cli.data.addresses import version_behind
from clipseg_cli.errors import ClipsegError
from clipseg_cli.outputs import format_names
from clipseg_cli.outputs.confidence import ENDING as CONFIDENCE
from clipseg_cli.outputs.labels import ENDING
from clipseg_cli.runs.summary import summarise
from clipseg_cli.runs.tars import (
    KIND,
    add_tar,
    begin_tars,
    files_in_tar,
    finish_tars,
    read_tars,
    tar_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from clipseg_cli.commands.shards.shard import ShardResult
    from clipseg_cli.config import PseudolabelConfig
    from clipseg_cli.data.tars import Tar
    from clipseg_cli.runs.records import ImageRecord
    from clipseg_cli.runs.summary import Summary
    from clipseg_cli.runs.tars import TarRecord
    from clipseg_cli.types import Dataset


class TarOutput:
    """A folder of tars; a tar that is finished is not begun again while its source is the same version.

    One with an image that failed is looked through each time: a file system need not tell that the image was mended.

    Args:
        config: the options.
        dataset: the classes, and the name of the source.
        tars: what is labelled.
        folder: where to; it is held by this process.
        identity: of the workers.

    Attributes:
        shards: what is left to do.
        total, before: tars, and how many of them are finished.
        notes: what a user should be told once.

    Raises:
        RunError: the folder was made with other options.
    """

    def __init__(
        self,
        config: PseudolabelConfig,
        dataset: Dataset,
        tars: Sequence[Tar],
        folder: Path,
        identity: Mapping[str, Any],
    ) -> None:
        self.dataset, self.folder = dataset, folder
        by_name = {str(tar.name): tar for tar in tars}
        self._names = list(by_name)
        self.identity = {**identity, "kind": KIND, "dataset": _source_identity(dataset, self._names)}
        begin_tars(folder, self.identity, dataset.classes)
        there = {name: record for name, record in read_tars(folder).items() if name in by_name}
        if KEPT in format_names(config.format_texts):
            there = {name: record for name, record in there.items() if _has_confidence(folder, record)}
        self._there = there
        self._records = {name: record for name, record in there.items() if _is_done(by_name[name], record)}
        self.shards = [
            Shard(name, tar=tar, known=_by_image(there.get(name)))
            for name, tar in by_name.items()
            if name not in self._records
        ]
        self.total, self.before = len(tars), len(self._records)
        self.notes: tuple[str, ...] = ()

    def begin(self) -> None:
        """Nothing needs to be said before."""

    def take(self, result: ShardResult) -> list[ImageRecord]:
        """Write the tar of label maps, and then that it is there.

        Raises:
            OutputError: it cannot be written.
        """
        before, images, files = self._there.get(result.shard), result.records, result.files
        if before is not None and result.kept:
            images = tuple((_by_image(before) | {record.image: record for record in images}).values())
            files = _with_kept(self.folder / result.shard, result)
        if before is not None and not result.files and images == before.images:
            record = dataclasses.replace(before, source=result.source.size, version=result.source.mark)
        else:
            record = add_tar(self.folder, result.shard, result.source, images, tar_bytes(files))
        self._records[result.shard] = record
        return list(result.records)

    def close(self) -> None:
        """Nothing is open."""

    def finish(self) -> Summary | None:
        """Write what describes all tars; None where some are missing.

        Raises:
            OutputError: it cannot be written.
        """
        if any(name not in self._records for name in self._names):
            return None
        ordered = [self._records[name] for name in self._names]
        images = [image for record in ordered for image in record.images]
        summary = summarise(self.folder, self.dataset, images)
        finish_tars(self.folder, self.identity, ordered, summary)
        return summary

    def doubles(self) -> Iterator[str]:
        """A sentence for each key that stands in two tars, which makes one image two for whoever reads them."""
        seen: dict[str, str] = {}
        for name in self._names:
            for image in self._records[name].images if name in self._records else ():
                if image.image in seen:
                    yield f"{name}: its key '{image.image}' is in {seen[image.image]} too"
                seen.setdefault(image.image, name)


def _source_identity(dataset: Dataset, names: Sequence[str]) -> dict[str, Any]:
    listed = "\n".join(names).encode(errors="surrogateescape")
    return {
        "layout": dataset.name,
        "title": dataset.title,
        "root": dataset.where,
        "tars": len(names),
        "tars_sha256": hashlib.sha256(listed).hexdigest(),
    }


def _by_image(record: TarRecord | None) -> dict[str, ImageRecord]:
    return {} if record is None else {image.image: image for image in record.images}


def _with_kept(path: Path, result: ShardResult) -> dict[str, bytes]:
    """What was labelled now and, of the tar that is there, what stays; in the order of a tar in one go."""
    names = {f"{name}{ending}" for name in result.kept for ending in (ENDING, CONFIDENCE)}
    files = {name: data for name, data in files_in_tar(path).items() if name in names}
    return dict(sorted({**files, **result.files}.items(), key=lambda item: PurePosixPath(item[0])))


def _has_confidence(folder: Path, record: TarRecord) -> bool:
    names = files_in_tar(folder / record.tar).keys()
    return all(f"{image.image}{CONFIDENCE}" in names for image in record.images if not image.error)


def _is_done(tar: Tar, record: TarRecord) -> bool:
    """Whether all images of a tar have labels, and it is the same one, as far as its file system tells."""
    if any(image.error for image in record.images):
        return False
    try:
        size, mark = version_behind(tar.address)
    except ClipsegError:  # whoever labels it will say so
        return False
    return size == record.source and record.version in ("", mark)
