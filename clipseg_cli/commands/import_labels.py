"""`clipseg import`: corrections of label maps, looked at as a whole before anything changes."""

from __future__ import annotations

import dataclasses
import getpass
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from clipseg_cli.config import check_options, ignore_value
from clipseg_cli.data.annotations import FORMATS, ImageNames, choose, shown_name
from clipseg_cli.data.labels import label_texts
from clipseg_cli.errors import AnnotationError, ClipsegError, DiskFullError, UsageError
from clipseg_cli.outputs.labels import encode_labels, facts_in
from clipseg_cli.runs.derived import read_derived
from clipseg_cli.runs.human import HumanRecord, home_of
from clipseg_cli.runs.human_changes import changing, undo_last
from clipseg_cli.runs.labelled import open_labels
from clipseg_cli.runs.records import file_fingerprint, fingerprint
from clipseg_cli.types import NO_CLASS, UNTOLD, ReadOptions
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path, PurePosixPath

    from numpy.typing import NDArray

    from clipseg_cli.config import ImportConfig
    from clipseg_cli.data.annotations import Chosen
    from clipseg_cli.runs.human_changes import Change
    from clipseg_cli.runs.labelled import LabelFolder
    from clipseg_cli.types import Annotation, ClassList, Told

Outcome = Literal["corrected", "checked", "unchanged", "left out", "changed since"]


@dataclass(frozen=True)
class ImportedImage:
    """What an import does with one image.

    Attributes:
        image: its name.
        outcome: "unchanged", "left out" (without a region in its file) and "changed since" (it was looked at with
            another label than there is now) change nothing and mark nothing.
        changed: pixels that get another label.
        source: the file.
        format: of it.
    """

    image: str
    outcome: Outcome
    changed: int
    source: str
    format: str


@contextmanager
def open_import(config: ImportConfig) -> Iterator[LabelImport]:
    """Find labels and files, and lock the folder.

    Raises:
        ClipsegError: anything wrong with options, folder or the names of files.
    """
    check_options(config)
    if not config.files:
        raise UsageError("Missing argument 'FILES'.", hint="name files of corrections, or --undo")
    labels = open_labels(config.run)
    chosen = choose(config.files, config.format)
    read_derived(home_of(labels.folder))  # a damaged record is refused before anything changes
    with changing(home_of(labels.folder)) as change:
        # Once more, now that nobody changes them.
        yield LabelImport(config, open_labels(config.run), chosen, change)


def undo_import(config: ImportConfig) -> tuple[dict[str, Any], list[str]]:
    """Take the last import back: what was noted of it, and the images whose labels are as before.

    Raises:
        ClipsegError: there is none, or a label was changed since.
    """
    if config.files:
        raise UsageError("--undo takes the last import back, whatever it was", hint="leave out FILES")
    home = home_of(open_labels(config.run).folder)
    read_derived(home)  # a damaged record is refused before anything changes
    return undo_last(home)


class LabelImport:
    """Iterating it reads every file and yields what would become of each image; `finish` then does it.

    Attributes:
        labels: that are there.
        problems: why nothing can be imported.
        held_out: how many of the images are kept out of training, once it is finished.
        by: who answers for the labels.
    """

    def __init__(
        self, config: ImportConfig, labels: LabelFolder, chosen: list[Chosen], change: Change
    ) -> None:
        self.labels, self.problems, self.by = labels, list[ClipsegError](), config.by.strip() or _user()
        self.held_out = 0
        self._config, self._chosen, self._change = config, chosen, change
        self._names = ImageNames(labels.files)
        self._options = ReadOptions(labels.run.classes, config.on_top, home_of(labels.folder).resolve().name)
        self._taken: dict[PurePosixPath, str] = {}
        self._records: dict[str, HumanRecord] = {}
        self._when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def __iter__(self) -> Generator[ImportedImage, None, None]:
        """In the order of the files; what cannot be imported goes to `problems`.

        Raises:
            DiskFullError: nothing more can be prepared.
        """
        for path, name in self._chosen:
            try:
                for annotation in FORMATS.get(name).read(path, self._options):
                    image = self._looked_at(annotation, path, name)
                    if image is not None:
                        yield image
            except AnnotationError as error:
                self.problems.append(error)

    def finish(self) -> None:
        """Carry out the import; nothing is done where no image is to be marked.

        Raises:
            AnnotationError: there are problems; nothing was changed.
            OutputError: it cannot be written.
        """
        if self.problems:
            raise AnnotationError(
                f"nothing was imported: {len(self.problems):,} problem"
                + ("s" if len(self.problems) > 1 else ""),
                hint="mend the files, or leave out those that are wrong",
            )
        self.held_out = sum(record.hold_out for record in self._records.values())
        if self._records:
            facts = {
                "by": self.by,
                "when": self._when,
                "files": [str(path) for path, _ in self._chosen],
                "images": len(self._records),
            }
            self._change.commit(self._records, facts)

    def _looked_at(self, annotation: Annotation, path: Path, format_: str) -> ImportedImage | None:
        where = str(path) if annotation.image == path.as_posix() else f"{path}: {annotation.image}"
        try:
            name = self._names.find(annotation.image)
            where = f"{path}: {name}"
            return self._one(annotation, name, path, format_)
        except DiskFullError:
            raise
        except ClipsegError as error:
            self.problems.append(AnnotationError(f"{where}: {error.message}", hint=error.hint))
            return None

    def _one(self, annotation: Annotation, name: PurePosixPath, path: Path, format_: str) -> ImportedImage:
        if name in self._taken:
            raise AnnotationError(f"stands in {self._taken[name]} already", hint="one of them has to go")
        self._taken[name] = str(path)
        result = self.labels.read(name)
        now, size = result.labels, (result.labels.shape[0], result.labels.shape[1])
        if annotation.size is not None and annotation.size != size:
            raise AnnotationError(
                f"is {annotation.size[1]}x{annotation.size[0]} in the file, but its label map is {size[1]}x{size[0]}",
                hint="is it another image, or one of another size?",
            )
        if annotation.label and annotation.label != file_fingerprint(self.labels.files[name]):
            return ImportedImage(str(name), "changed since", 0, str(path), shown_name(format_))
        new = now
        if annotation.told is not None:
            told = annotation.told(size)
            new = resolve(told, now, result.classes)
            if (told == UNTOLD).all() and not self._config.empty and (new != now).any():
                return ImportedImage(str(name), "left out", 0, str(path), shown_name(format_))
        changed = int((new != now).sum())
        if not changed and not (annotation.checked or self._config.checked):
            return ImportedImage(str(name), "unchanged", 0, str(path), shown_name(format_))
        record = self._mark(name, new if changed else None, path, format_)
        self._records[str(name)] = dataclasses.replace(record, changed=changed)
        outcome: Outcome = "corrected" if changed else "checked"
        return ImportedImage(str(name), outcome, changed, str(path), shown_name(format_))

    def _mark(self, name: PurePosixPath, new: NDArray[Any] | None, path: Path, format_: str) -> HumanRecord:
        """The record of an image, whose new label PNG is prepared where there is one."""
        image, file = str(name), self.labels.files[name]
        before = self._change.before.get(image)
        machine = before.machine if before else 0
        if new is None:
            label = fingerprint(file.read_bytes())
        else:
            facts = facts_in(label_texts(file)) or {}
            data = encode_labels(
                new,
                self.labels.run.classes,
                image=str(facts.get("image", image)),
                file=str(facts.get("file", "")),
                made_by=f"{self.by}, from {path.name}",
            )
            self._change.replace(image, data)
            label = fingerprint(data)
        return HumanRecord(
            image=image,
            kind="corrected" if new is not None or machine else "checked",
            by=self.by,
            when=self._when,
            source=str(path).encode(errors="replace").decode(),
            format=shown_name(format_),
            changed=0,
            # Once held out, an image stays so: nobody knows who has trained on what since.
            hold_out=self._config.hold_out or (before is not None and before.hold_out),
            label=label,
            number=self._change.number,
            machine=machine or (self._change.number if new is not None else 0),
        )


def resolve(told: Told, now: NDArray[Any], classes: ClassList) -> NDArray[Any]:
    """The label map that a file means.

    Where it has no region there is background; none where the classes have no background, nor where the map that is
    there has no class: formats of regions cannot tell these from the background.

    Args:
        told: [H, W], what the file says.
        now: [H, W], the map that is there.
        classes: what its ids mean.

    Returns:
        [H, W] of the type of `now`.
    """
    ignore = ignore_value(len(classes))
    rest = ignore if classes.background is None else classes.background
    new = np.where(told == NO_CLASS, ignore, told)
    new = np.where(told == UNTOLD, np.where(now == ignore, ignore, rest), new)
    return new.astype(now.dtype)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container without accounts
        return "unknown"


def summary_of(images: list[ImportedImage]) -> str:
    """As in "3 corrected, 1 checked, 2 unchanged"."""
    counts = [(outcome, sum(i.outcome == outcome for i in images)) for outcome in get_args(Outcome)]
    return listed((f"{count:,} {outcome}" for outcome, count in counts if count), 4) or "nothing"
