"""Which data set a folder is: the folder itself, or one a level below it."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clipseg_cli.data.datasets._splits import Split, find_split, read_names, without_suffix
from clipseg_cli.data.datasets._tree import ANY_IMAGE, Pattern, files_below
from clipseg_cli.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from clipseg_cli.data.datasets._layout import Layout

_PROBED = 50  # images; one of them must have a label file


class Found(NamedTuple):
    """A folder that looks like a data set.

    Attributes:
        name: of the layout.
        root: as the user wrote it, or the folder below that.
        complete: of one split at least it has images, their list and ground truth.
        depth: levels below the folder that was given.
    """

    name: str
    root: Path
    complete: bool
    depth: int = 0


class Missing(NamedTuple):
    """What a root lacks: a folder or list file below it ("SegmentationClass/"), and the first file expected."""

    part: str
    expected: Path


def recognise_in(root: Path, layouts: Mapping[str, Layout]) -> list[Found]:
    """What the folder itself looks like, then what the folders in it look like.

    At the same distance the complete ones come first, then those that others give way to.

    Raises:
        DatasetError: a folder cannot be listed.
    """
    here = _look(root, layouts, 0)
    # A folder of one's own has no names that could not mean something else: it is not searched for.
    known = {name: layout for name, layout in layouts.items() if layout.benchmarks}
    below = [found for folder in _subfolders(root) for found in _look(folder, known, 1)]
    return [*_ranked(here, layouts), *_ranked(below, layouts)]


def missing_parts(root: Path, layout: Layout, split: Split, *, labels: bool) -> list[Missing]:
    """What one split lacks altogether; single files that are missing are not counted here.

    Args:
        root: an existing folder.
        layout: what it is taken for.
        split: its images.
        labels: whether ground truth is needed.
    """
    missing: list[Missing] = []
    listed = _listed_names(split)
    lying = _lying_names(root, layout, split)
    published = [layout.first[split.name]] if split.name in layout.first else []
    # A split with a list cannot be told from the images that lie there.
    likely = (*published, *lying) if layout.split_file else (*lying, *published)
    name = next(iter((*listed, *likely, *layout.first.values(), "photo")))
    if not lying:
        images = Pattern.of(layout.images, split.folders[0])
        missing.append(Missing(f"{images.folder}/", images.path(root, name)))
    if split.file is not None and split.name in layout.splits and not split.file.exists():
        missing.append(Missing(str(split.file.relative_to(root)), split.file))
    if labels and layout.labels and not _any_label(root, layout, split, listed or lying):
        missing.append(missing_labels(root, layout, split, name))
    return missing


def missing_labels(root: Path, layout: Layout, split: Split, name: str) -> Missing:
    """How to say that no image has ground truth: in its first form, beginning with one name."""
    labels = Pattern.of(layout.labels[0].path, split.folders[0])
    expected = labels.path(root, name)
    inside = f"{labels.folder}/*{expected.name.removeprefix(Path(name).name)}"
    return Missing(inside if (root / labels.folder).is_dir() else f"{labels.folder}/", expected)


def _look(folder: Path, layouts: Mapping[str, Layout], depth: int) -> list[Found]:
    return [
        Found(name, folder, _is_complete(folder, layout), depth)
        for name, layout in layouts.items()
        if any((folder / mark).exists() for mark in layout.marks)
    ]


def _is_complete(root: Path, layout: Layout) -> bool:
    splits = dict.fromkeys((layout.score_split, layout.label_split, *layout.splits))
    found = (find_split(name, root, layout) for name in splits)
    if not layout.benchmarks:  # its lists may be missing
        found = (split._replace(file=None) for split in found)
    return any(not missing_parts(root, layout, split, labels=True) for split in found)


def _ranked(found: list[Found], layouts: Mapping[str, Layout]) -> list[Found]:
    """Complete ones first; before those that give way to them; a folder of one's own last."""

    def rank(item: Found) -> tuple[bool, bool, bool, str]:
        layout = layouts[item.name]
        yields = any(f.name in layout.gives_way_to and f.root == item.root for f in found)
        return (not item.complete, not layout.benchmarks, yields, str(item.root))

    return sorted(found, key=rank)


def _listed_names(split: Split) -> list[str]:
    """The first names of the list; none if there is no list, or one that cannot be read."""
    try:
        names = read_names(split.file)[:_PROBED] if split.file is not None else []
    except DatasetError:  # told when the split is opened
        return []
    return [without_suffix(name) for _, name in names]


def _lying_names(root: Path, layout: Layout, split: Split) -> list[str]:
    """Names of the first few images of a split."""
    parts = dict.fromkeys(Pattern.of(layout.images, folder) for folder in split.folders)
    files = ((part, file) for part in parts for file in files_below(root / part.folder))
    names = (name for part, file in files if (name := part.name_of(file)) is not None)
    return list(islice(names, _PROBED))


def _any_label(root: Path, layout: Layout, split: Split, names: Iterable[str]) -> bool:
    patterns = dict.fromkeys(
        Pattern.of(form.path, folder) for form in layout.labels for folder in split.folders
    )
    if any(pattern.ending == ANY_IMAGE for pattern in patterns):
        return any(True for pattern in patterns for _ in files_below(root / pattern.folder))
    return any(pattern.path(root, name).exists() for pattern in patterns for name in names)


def _subfolders(folder: Path) -> list[Path]:
    """The visible folders in this one, sorted; none where it may not be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except OSError:
        return []
