"""What a conversion or a review puts beside the labels is noted there: which labels it was made of."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clipseg_cli.runs.derived import (
    Derived,
    announce_derived,
    announcing,
    note_derived,
    place_in,
    read_derived,
)
from clipseg_cli.runs.human import home_of
from clipseg_cli.runs.records import file_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path, PurePosixPath

    from clipseg_cli.runs.labelled import LabelFolder


class Derivation:
    """Notes of one command; none where it writes outside of the folder of the labels, which is a copy to hand over.

    Args:
        labels: that are read.
        out: where files go.
        options: what is written, an output format or "review" -> options that make it again.
        part: only some images are read; the files know the others already.

    Raises:
        RunError: the record is damaged.
    """

    def __init__(
        self, labels: LabelFolder, out: Path, options: Mapping[str, Mapping[str, Any]], *, part: bool = False
    ) -> None:
        self._labels, self._out, self._options, self._part = labels, out, options, part
        self._home = home_of(labels.folder)
        self._place = place_in(self._home, out)
        self._noted = () if self._place is None else read_derived(self._home)
        self._before: dict[str, Derived] = {}
        self._images: dict[str, str] = {}
        self._own: dict[str, Path] = {}

    def begin(self) -> None:
        """Before files are written that take over what lies there: those that know images which are gone are removed.

        One that somebody has edited stays.
        """
        there = set(map(str, self._labels.files))
        for made in self._noted:
            if made.folder != self._place or made.name not in self._options:
                continue
            self._before[made.name] = made
            if not self._part and made.images.keys() - there and made.is_untouched(self._home):
                del self._before[made.name]
                announce_derived(self._home, dataclasses.replace(made, files=dict.fromkeys(made.files, "")))
                for name in made.files:
                    (self._out / name).unlink(missing_ok=True)

    def fingerprint(self, name: PurePosixPath) -> str:
        """Of what an image's part is made of; to be asked before that is read."""
        return "" if self._place is None else self._labels.fingerprint(name)

    def add(self, name: PurePosixPath, content: str, written: Mapping[str, Sequence[Path]]) -> None:
        """Note an image.

        Args:
            name: of it.
            content: fingerprint of what was read.
            written: format -> files of its own.
        """
        self._images[str(name)] = content
        for format_, paths in written.items():
            if paths:
                self._own.setdefault(format_, paths[0])

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """While files about all images are written: wherever the process ends, nobody takes them for edited.

        Args:
            name: of what is written.

        Raises:
            OutputError: the note of one cannot be written.
        """
        if self._place is None or name not in self._options or name in self._own:
            yield
        else:
            with announcing(self._home, self._out, self._note(name, self._place, ())):
                yield

    def end(self, together: Mapping[str, Iterable[Path]]) -> None:
        """Write the notes, behind the files.

        Args:
            together: what is written -> its files about all images.

        Raises:
            OutputError: they cannot be written.
        """
        if self._place is None:
            return
        notes = []
        for name in self._options:
            own = self._own.get(name)
            notes.append(self._note(name, self._place, together.get(name, ()) if own is None else [own]))
        note_derived(self._home, notes)

    def _note(self, name: str, place: str, paths: Iterable[Path]) -> Derived:
        """What is known of a format once its files are written."""
        before = self._before.get(name)
        images = {**({} if before is None else before.images), **self._images}
        files = {path.relative_to(self._out).as_posix(): file_fingerprint(path) for path in paths}
        classes = list(self._labels.run.classes.names)
        return Derived(name, place, self._options[name], classes, name in self._own, files, images)
