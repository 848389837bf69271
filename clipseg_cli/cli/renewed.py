"""What commands that change labels show of the files that were made of these before."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from clipseg_cli.cli.console import Console
    from clipseg_cli.commands.convert import Conversion


@dataclass
class Renewed:
    """What became of files that were out of date.

    Attributes:
        written: made anew.
        outdated: sentences about all others.
        failed: label maps that could not be read for it.
    """

    written: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    failed: int = 0


def renew(folder: Path, console: Console, changed: int = 0) -> Renewed:
    """Make files about all images anew that are of other labels than those in a folder, and name all other such files.

    Args:
        folder: the run, or the folder of labels.
        console: where it is said.
        changed: labels that the command has changed.

    Raises:
        ClipsegError: one cannot be written.
    """
    from clipseg_cli.commands.renew import find_renewals

    done, found = Renewed(), list(find_renewals(folder, changed))
    for conversion in [renewal.conversion for renewal in found if renewal.conversion is not None]:
        if failed := show_conversion(conversion, console):
            done.failed += failed
        else:
            done.written += [str(path) for paths in conversion.together.values() for path in paths]
    if done.failed:  # some of their images are as they should be now
        found = list(find_renewals(folder, changed))
    done.outdated = [one.sentence for one in found if done.failed or one.conversion is None]
    for sentence in done.outdated:
        console.say(f"Note: {sentence}")
    return done


def show_conversion(conversion: Conversion, console: Console) -> int:
    """Write label maps in other formats, and say which files about all images there are; how many maps failed."""
    failed = 0
    with (
        console.progress("converting", total=conversion.total) as advance,
        closing(iter(conversion)) as results,
    ):
        for result in results:
            if result.error is not None:
                failed += 1
                console.error(result.error)
            advance()
    for paths in conversion.together.values():
        for path in paths:
            console.say(f"wrote {path}")
    return failed
