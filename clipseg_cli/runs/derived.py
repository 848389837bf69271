"""`derived.json`: what was made of the labels of a folder and lies in it, and which label each image had then.

Labels change: images come, words come, humans correct. What was made of them before (`coco.json`, a review page) would
then show what is no longer so, and nothing in it would say that. With this record it is known by image.

A file and its note cannot be written at once. So the fingerprint of a file is noted just before it takes its name: what
a killed process left is told from what somebody has edited, and is made anew.
"""

from __future__ import annotations

import dataclasses
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.errors import RunError
from clipseg_cli.runs.records import file_fingerprint
from clipseg_cli.utils.files import telling, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clipseg_cli.runs.labelled import LabelFolder

FILE = "derived.json"
REVIEW = "review"
_FORMAT, _VERSION = "clipseg-derived", 1
_OPTIONS = {"images": str, "classes": str, "against": str, "truth": str, "min_area": int, "show": int, "side": int,
            "hyperparameters": list}  # fmt: skip
"""Of `clipseg convert` and `review`, with their types."""


@dataclass(frozen=True)
class Derived:
    """Files of one kind in one folder.

    Attributes:
        name: an output format, or "review".
        folder: where they lie, below the folder of the labels; "." for that itself.
        options: of the command that made them, other than its defaults.
        classes: names of the classes at that time; none where a process was killed while it wrote the files.
        each: each image has files of its own.
        files: the files about all images, or else one of them -> fingerprint as it was written; empty of one that was
            removed to be written again.
        images: image -> fingerprint of what its part was made of (`LabelFolder.fingerprint`).
    """

    name: str
    folder: str
    options: Mapping[str, Any]
    classes: Sequence[str]
    each: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)

    def is_there(self, home: Path) -> bool:
        """Whether files are where they were written; somebody may have taken them away."""
        return all(not was or (home / self.folder / name).is_file() for name, was in self.files.items())

    def is_untouched(self, home: Path) -> bool:
        """Whether all is known to be as it was written, so that nobody's work is lost when it is written again."""
        return not self.each and all(
            file_fingerprint(home / self.folder / name) == was for name, was in self.files.items()
        )


@dataclass(frozen=True)
class Outdated:
    """Something that was made of other labels than those that are there.

    Attributes:
        made: what.
        changed: images whose labels are others now, or that have some only now.
        gone: images that have no label any more, or have left the data set; their own files stay as their label does.
        renamed: the class list is another.
    """

    made: Derived
    changed: frozenset[str]
    gone: frozenset[str]
    renamed: bool

    @property
    def images(self) -> int:
        """How many images it is wrong about; all of them where the class list is another."""
        return len(self.made.images) if self.renamed else len(self.changed | self.gone)


def read_derived(home: Path) -> list[Derived]:
    """What was noted; nothing where nothing was. What a killed process had begun to replace is of no class list.

    Raises:
        RunError: the record is damaged.
    """
    path = home / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT or data["version"] != _VERSION:
            raise ValueError(f"format {data['format']}, version {data['version']}")
        known = {(one.name, one.folder): one for one in map(_checked, data["made"])}
        if "coming" in data:
            _settle(home, known, _checked(data["coming"]))
        return list(known.values())
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged, or of another clipseg: {error}",
            hint="remove it, and have made anew what lies there beside the labels",
        ) from error


def note_derived(home: Path, made: Iterable[Derived]) -> None:
    """Add to the record; what has the same name and folder is replaced.

    Raises:
        RunError: the record is damaged.
        OutputError: it cannot be written.
    """
    _write(home, _known(home) | {(one.name, one.folder): one for one in made})


def announce_derived(home: Path, coming: Derived) -> None:
    """Note what is about to be there: `coming.files`, with the fingerprints that they will have.

    Raises:
        RunError: the record is damaged.
        OutputError: it cannot be written.
    """
    _write(home, _known(home), coming)


@contextmanager
def announcing(home: Path, out: Path, coming: Derived) -> Iterator[None]:
    """Announce each file that this thread writes meanwhile, before it takes its name.

    Args:
        home: folder of the labels.
        out: folder of the files, which is that of `coming`.
        coming: what they belong to; its own files do not count.
    """

    def tell(path: Path, temporary: Path) -> None:
        files = {path.relative_to(out).as_posix(): file_fingerprint(temporary)}
        announce_derived(home, dataclasses.replace(coming, files=files))

    with telling(tell):
        yield


@contextmanager
def replacing_derived(home: Path, name: str) -> Iterator[None]:
    """While a format that was noted is written again beside the labels, together with them; see `forget_derived`."""
    known = _known(home).get((name, "."))
    if known is None:
        yield
    else:
        with announcing(home, home, known):
            yield


def forget_derived(home: Path, names: Iterable[str]) -> None:
    """Strike out what was written again beside the labels, together with them.

    Raises:
        RunError: the record is damaged.
        OutputError: it cannot be written.
    """
    gone = {(name, ".") for name in names}
    known = _known(home)
    if known.keys() & gone:
        _write(home, {key: one for key, one in known.items() if key not in gone})


def _known(home: Path) -> dict[tuple[str, str], Derived]:
    return {(one.name, one.folder): one for one in read_derived(home)}


def _settle(home: Path, known: dict[tuple[str, str], Derived], coming: Derived) -> None:
    """Take over what was announced, where it came to be; other files of the same kind may not have come to it."""
    key = coming.name, coming.folder
    place, before = home / coming.folder, known.get(key)
    taken = {name: mark for name, mark in coming.files.items() if file_fingerprint(place / name) == mark}
    if taken:
        files = {**(before.files if before else {}), **taken}
        images = {**(before.images if before else {}), **coming.images}
        known[key] = dataclasses.replace(coming, classes=(), files=files, images=images)


def _write(home: Path, known: Mapping[tuple[str, str], Derived], coming: Derived | None = None) -> None:
    data: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "made": [
            {
                **dataclasses.asdict(one),
                "images": dict(sorted(one.images.items())),
            }  # whoever wrote which first
            for _, one in sorted(known.items())
        ],
    }
    if coming is not None:
        data["coming"] = dataclasses.asdict(coming)
    write_bytes(home / FILE, (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode())


def find_outdated(home: Path, labels: LabelFolder) -> list[Outdated]:
    """What lies in a folder and is of other labels than those that are there, by name and folder.

    Raises:
        RunError: the record is damaged.
    """
    there = [one for one in read_derived(home) if one.is_there(home)]
    now = {str(name): labels.fingerprint(name) for name in labels.files} if there else {}
    classes = list(labels.run.classes.names)
    found = [
        Outdated(
            one,
            frozenset(name for name, content in now.items() if one.images.get(name) != content),
            frozenset() if one.each else frozenset(one.images.keys() - now.keys()),
            list(one.classes) != classes,
        )
        for one in there
    ]
    return [one for one in found if one.changed or one.gone or one.renamed]


def place_in(home: Path, folder: Path) -> str | None:
    """A folder as `Derived` names it; None where it is not inside that of the labels."""
    try:
        return folder.resolve().relative_to(home.resolve()).as_posix()
    except ValueError:
        return None


def _checked(entry: Any) -> Derived:
    one = Derived(**entry)
    texts = (one.name, one.folder, *one.classes, *one.files, *one.files.values(), *one.images.values())
    known = all(isinstance(value, _OPTIONS[name]) for name, value in one.options.items())
    if not known or not all(isinstance(text, str) for text in texts):
        raise ValueError("a field of another type")
    if Path(one.folder).is_absolute() or ".." in Path(one.folder).parts:
        raise ValueError(f"{one.folder} is not inside the folder")
    return one
