"""What `clipseg pseudolabel` shows while shards are labelled."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from clipseg_cli.cli.console import count, dataset_line
from clipseg_cli.errors import ClipsegError

if TYPE_CHECKING:
    from clipseg_cli.cli.console import Console
    from clipseg_cli.commands.pseudolabel_shards import ShardedRun


def label_shards(run: ShardedRun, console: Console) -> None:
    """Have the shards labelled; each image and each shard that failed is named.

    Raises:
        KeyboardInterrupt: with a sentence about how to go on.
    """
    unit = "image" if run.tars is None else "tar"
    if run.tars is None:
        console.say(dataset_line(run.dataset))
    else:
        console.say(
            f"{run.dataset.where}: {count(len(run.tars), unit)}, {count(len(run.dataset.classes), 'class')}"
        )
    console.say(f"{run.model} on {run.engine.description.device}")
    for note in run.notes:
        console.say(f"Note: {note}")
    before, shards = run.output.before, run.output.shards
    if before:
        console.say(f"{count(before, unit)} {'was' if before == 1 else 'were'} done before")
    finished = 0
    try:
        with (
            console.countdown("labelling", total=len(shards)) as show,
            closing(iter(run)) as results,
        ):
            for result, records in results:
                finished += 1
                if result.error:
                    console.error(ClipsegError(result.error, hint=result.hint))
                for record in records:
                    if record.error:
                        console.error(ClipsegError(record.error))
                console.detail(f"{result.shard}: {count(len(records), 'image')} by {result.place}")
                show(finished, count(run.done, "image"))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted after {finished} of {count(len(shards), 'shard')}; the same command goes on with the rest"
        ) from None
