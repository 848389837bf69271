"""Which label map a file is about: by the name of its image, however much of the path and suffix it has kept."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from clipseg_cli.errors import AnnotationError, did_you_mean
from clipseg_cli.utils.text import clean, listed

if TYPE_CHECKING:
    from collections.abc import Iterable

Parts = tuple[str, ...]


class ImageNames:
    """The images that have labels, to be found by what files call them.

    Args:
        names: of the images: paths below their folder, without suffix.
    """

    def __init__(self, names: Iterable[PurePosixPath]) -> None:
        self._names = list(names)
        self._by_last = defaultdict[str, list[tuple[Parts, PurePosixPath]]](list)
        for name in self._names:
            parts = _parts(str(name))
            self._by_last[parts[-1]].append((parts, name))

    def find(self, image: str) -> PurePosixPath:
        """The image of a name.

        Args:
            image: a name or a path, with folders above those that the labels know, or without theirs; with the suffix
                of the image or of the file that is about it.

        Raises:
            AnnotationError: there is none, or there are several.
        """
        parts = _parts(image)
        stem = PurePosixPath(parts[-1]).stem if parts else ""
        for own in (parts, (*parts[:-1], stem)):
            found = self._ending_alike(own)
            if len(found) == 1:
                return found[0]
            if found:
                raise AnnotationError(
                    f"may be {listed(found, 3)}", hint="keep the folders of the images in the names"
                )
        raise AnnotationError("is no image with labels here", hint=did_you_mean(stem, map(str, self._names)))

    def _ending_alike(self, parts: Parts) -> list[PurePosixPath]:
        """Those whose path is the end of this one, the longest of them; else those whose end it is."""
        there = self._by_last.get(parts[-1], []) if parts else []
        whole = [(own, name) for own, name in there if parts[-len(own) :] == own]
        if whole:
            most = max(len(own) for own, _ in whole)
            return [name for own, name in whole if len(own) == most]
        return [name for own, name in there if own[-len(parts) :] == parts]


def _parts(name: str) -> Parts:
    # As formats write them that cannot hold every character; Label Studio's COCO begins with the query of an address.
    text = name.replace("\\", "/").removeprefix("?d=").encode(errors="replace").decode()
    return tuple(clean(part) for part in text.split("/") if part not in ("", ".", ".."))
