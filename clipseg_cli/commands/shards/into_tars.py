"""The tars of a source into tars of label maps, each of the same name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from clipseg_cli.commands.shards.shard import Shard
from clipseg_cli.data.addresses import size_behind
from clipseg_cli.errors import ClipsegError
from clipseg_cli.runs.summary import summarise
from clipseg_cli.runs.tars import KIND, add_tar, begin_tars, finish_tars, read_tars, tar_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from clipseg_cli.commands.shards.shard import ShardResult
    from clipseg_cli.data.tars import Tar
    from clipseg_cli.runs.records import ImageRecord
    from clipseg_cli.runs.summary import Summary
    from clipseg_cli.runs.tars import TarRecord
    from clipseg_cli.types import Dataset


class TarOutput:
    """A folder of tars; a tar that is finished is not begun again while its source has the same size.

    Args:
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
        self, dataset: Dataset, tars: Sequence[Tar], folder: Path, identity: Mapping[str, Any]
    ) -> None:
        self.dataset, self.folder = dataset, folder
        self._names = [str(tar.name) for tar in tars]
        self.identity = {**identity, "kind": KIND, "dataset": _source_identity(dataset, self._names)}
        begin_tars(folder, self.identity, dataset.classes)
        there = read_tars(folder)
        self._records: dict[str, TarRecord] = {
            str(tar.name): there[str(tar.name)]
            for tar in tars
            if str(tar.name) in there and _is_unchanged(tar, there[str(tar.name)])
        }
        self.shards = [Shard(str(tar.name), tar=tar) for tar in tars if str(tar.name) not in self._records]
        self.total, self.before = len(tars), len(self._records)
        self.notes: tuple[str, ...] = ()

    def begin(self) -> None:
        """Nothing needs to be said before."""

    def take(self, result: ShardResult) -> list[ImageRecord]:
        """Write the tar of label maps, and then that it is there.

        Raises:
            OutputError: it cannot be written.
        """
        data = tar_bytes(result.files)
        record = add_tar(self.folder, result.shard, result.source, result.records, data)
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


def _is_unchanged(tar: Tar, record: TarRecord) -> bool:
    try:
        return size_behind(tar.address) == record.source
    except ClipsegError:  # whoever labels it will say so
        return False
