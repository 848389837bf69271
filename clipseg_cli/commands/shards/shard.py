"""What goes to a worker and what comes back; all of it can be pickled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clipseg_cli.data.addresses import NOTHING, Version
from clipseg_cli.outputs import json_safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from clipseg_cli.config import PseudolabelConfig
    from clipseg_cli.data.tars import Tar
    from clipseg_cli.runs.records import ImageRecord
    from clipseg_cli.types import Dataset, Sample


@dataclass(frozen=True)
class ShardJob:
    """What all shards of a run have in common.

    Attributes:
        config: the options.
        dataset: what is labelled, without its samples.
        unseen: ids of the classes to fill; none where all is labelled.
    """

    config: PseudolabelConfig
    dataset: Dataset
    unseen: tuple[int, ...] = ()


@dataclass(frozen=True)
class Shard:
    """What one worker labels in one go: some groups of a data set, or the images of a tar.

    Attributes:
        name: for people, unique in a run.
        samples: whole groups, in order; none where it is a tar.
        batches: image -> its batch in the run; none where it is a tar, which counts its own.
        tar: the tar.
        known: image -> record, of an earlier try. What is labelled already stays, unless an image that failed then, and
            goes through the network with it, can be read now. Of a tar, in its order.
    """

    name: str
    samples: tuple[Sample, ...] = ()
    batches: Mapping[str, int] = field(default_factory=dict)
    tar: Tar | None = None
    known: Mapping[str, ImageRecord] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard.

    Attributes:
        shard: its name.
        records: of its images, in order; those that failed too.
        kept: other images, whose labels stay as they were.
        files: path below the folder of labels -> content.
        source: version of its tar; of nothing where it is none.
        error, hint: why there is nothing of it at all; empty where there is.
        made_by: `digest` of the identity of the worker.
        place: host and process, for people.
        pid: number of the process.
    """

    shard: str
    records: tuple[ImageRecord, ...] = ()
    kept: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    source: Version = NOTHING
    error: str = ""
    hint: str = ""
    made_by: str = ""
    place: str = ""
    pid: int = 0


@dataclass(frozen=True)
class Description:
    """What a worker says of itself once its model is loaded.

    Attributes:
        identity: all that its labels depend on but the images: see `run_identity`.
        notes: what a user should be told once.
        model, device: for people.
    """

    identity: Mapping[str, Any]
    notes: tuple[str, ...]
    model: str
    device: str


@dataclass(frozen=True)
class Engine:
    """Workers that are ready.

    Attributes:
        description: of each of them.
        label: shards -> what became of them, each once, in any order.
        notes: what a user should be told of the workers.
    """

    description: Description
    label: Callable[[Sequence[Shard]], Iterator[ShardResult]]
    notes: tuple[str, ...] = ()


def digest(identity: Mapping[str, Any]) -> str:
    """SHA-256 of an identity, in hex: equal for workers whose labels are equal."""
    return hashlib.sha256(json.dumps(json_safe(identity), sort_keys=True).encode()).hexdigest()
