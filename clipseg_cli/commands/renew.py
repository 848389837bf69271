"""What lies beside labels and was made of them, once labels have changed: made anew, or named as out of date."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipseg_cli.commands.convert import prepare_conversion
from clipseg_cli.config import ConvertConfig, ReviewConfig, options_of
from clipseg_cli.errors import ClipsegError
from clipseg_cli.outputs import FORMATS, format_names, shown_name
from clipseg_cli.runs.derived import REVIEW, Outdated, find_outdated, read_derived
from clipseg_cli.runs.human import home_of
from clipseg_cli.runs.labelled import open_labels, run_home
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clipseg_cli.commands.convert import Conversion
    from clipseg_cli.runs.derived import Derived
    from clipseg_cli.runs.labelled import LabelFolder


@dataclass(frozen=True)
class Renewal:
    """What is to be done about one thing that is out of date.

    Attributes:
        conversion: makes it anew; None where that is left to the user, since it is long work or would be lost work.
        sentence: says which command makes it anew.
    """

    conversion: Conversion | None
    sentence: str


def find_renewals(folder: Path, changed: int = 0) -> Iterator[Renewal]:
    """What lies in a folder of labels, or in a run, and is of other labels than those that are there.

    A file about all images that clipseg wrote and nobody has edited is made anew: of the images that have changed,
    where all others are as they were. Files of each image may have been edited in any tool, and looking through a run
    again is long work: they are named. So is what `segment` wrote in one go with the labels, which nobody has noted.

    Args:
        folder: the run, or the folder of labels.
        changed: labels that were changed just now.

    Raises:
        ClipsegError: the record of what was made is damaged.
    """
    home = home_of(folder)
    made = read_derived(home)
    if not made and not changed:
        return
    noted = {one.name for one in made if one.folder == "."}
    labels = open_labels(str(home))
    beside = [name for name in _beside(home, labels) if name not in noted] if changed else []
    if beside:
        verb, them = ("is", "it") if len(beside) == 1 else ("are", "them")
        command = ["clipseg", "convert", str(home), "--formats", ",".join(map(shown_name, beside))]
        if any("pixels" in FORMATS.get(name).needs for name in beside):
            command += ["--images", "DIR"]
        what = listed(map(shown_name, beside), len(beside))
        yield Renewal(
            None,
            f"what segment wrote as {what} {verb} of the labels before ({_images(changed)}): {shlex.join(command)} "
            f"makes {them} anew",
        )
    for one in find_outdated(home, labels):
        conversion, why = None, ""
        if one.made.name != REVIEW and one.made.is_untouched(home):
            try:
                conversion = prepare_conversion(
                    _config(home, one.made), None if one.gone or one.renamed else one.changed
                )
            except ClipsegError as error:
                why = f" ({error.message})"
        elif one.made.name != REVIEW and not one.made.each:
            why = " and was edited since"
        yield Renewal(conversion, _sentence(home, one, why))


def _beside(home: Path, labels: LabelFolder) -> Iterator[str]:
    """Formats that `segment` wrote with the labels of a folder and that are made of them; none in a run."""
    if run_home(home) is not None or not labels.run.options.get("formats"):
        return
    for name in format_names((str(labels.run.options["formats"]),)):
        if name not in ("labels", "video") and "scores" not in FORMATS.get(name).needs:
            yield name


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def _config(home: Path, made: Derived) -> ConvertConfig:
    known: dict[str, Any] = dict(made.options)
    if "hyperparameters" in known:
        known["hyperparameters"] = tuple(known["hyperparameters"])
    out = None if made.folder == "." else home / made.folder
    return dataclasses.replace(
        ConvertConfig(labels=str(home), formats=shown_name(made.name), out=out), **known
    )


def _sentence(home: Path, one: Outdated, why: str) -> str:
    """As in "coco.json is out of date (2 images) and was edited since: clipseg convert RUN --formats coco"."""
    what = _images(one.images)
    if one.made.each:
        named = f"what lies there as {shown_name(one.made.name)}"
    else:
        named = "review.html, with its tables," if one.made.name == REVIEW else ", ".join(one.made.files)
    place = "" if one.made.folder == "." else f" in {home / one.made.folder}"
    return f"{named}{place} is out of date ({what}){why}: {_command(home, one.made)} makes it anew"


def _command(home: Path, made: Derived) -> str:
    """For a shell."""
    review = made.name == REVIEW
    words = ["clipseg", "review" if review else "convert", str(home)]
    words += [] if review else ["--formats", shown_name(made.name)]
    words += [] if made.folder == "." else ["--out", str(home / made.folder)]
    known: dict[str, Any] = options_of(ReviewConfig if review else ConvertConfig)
    for name, value in made.options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [known[name].flag(name), str(one)]
    return shlex.join(words)
