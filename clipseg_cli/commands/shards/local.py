"""Shards one after another in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.commands.shards.labeller import ShardLabeller
from clipseg_cli.commands.shards.shard import Engine

if TYPE_CHECKING:
    from clipseg_cli.commands.shards.shard import ShardJob


def local_engine(job: ShardJob) -> Engine:
    """This process as the only worker.

    Raises:
        ClipsegError: anything wrong with options or model.
    """
    labeller = ShardLabeller(job)
    return Engine(labeller.describe(), lambda shards: map(labeller, shards))
