"""From a root with a known layout to its images, ground truth and classes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from clipseg_cli.data.classes import load_benchmark, load_classes
from clipseg_cli.data.datasets._recognise import Missing, missing_labels, missing_parts
from clipseg_cli.data.datasets._splits import ALL, Split, find_split, images_of
from clipseg_cli.data.datasets._tree import Pattern, Tree
from clipseg_cli.data.datasets._values import as_table
from clipseg_cli.errors import DatasetError
from clipseg_cli.types import Dataset, ImageSource, Sample
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from clipseg_cli.data.datasets._choose import Choice
    from clipseg_cli.data.datasets._layout import LabelFiles, Layout

Purpose = Literal["label", "score"]


def open_benchmark(
    choice: Choice, layout: Layout, *, benchmark: str, split: str | None, purpose: Purpose, words: str
) -> Dataset:
    """One split of a data set with published classes.

    Raises:
        UsageError: no such split.
        DatasetError: the root is incomplete, or the list of the split is not what it should be.
    """
    spec = split or (layout.label_split if purpose == "label" else layout.score_split)
    part = find_split(spec, choice.root, layout)
    check_parts(choice.root, layout, part, labels=purpose == "score", asked=split is not None)
    tree = Tree(choice.root, layout)
    images = images_of(part, tree)
    form, labels = ground_truth(tree, part, images)
    if purpose == "score":
        check_labels(tree, part, images, labels, form)
    return Dataset(
        name=choice.name,
        title=layout.title,
        root=choice.root,
        benchmark=benchmark,
        split=part.name,
        classes=load_classes(benchmark, words=words),
        samples=samples(images, labels),
        label_ids=as_table(form.values[benchmark]) if form else None,
        labels_are=form.are if form else "",
        unseen=tuple(load_benchmark(benchmark).get("unseen", ())),
        notes=(*choice.notes, *tree.notes),
    )


def samples(images: Mapping[str, Path], labels: Mapping[str, Path]) -> tuple[Sample, ...]:
    """One sample for each image, in order."""
    return tuple(
        Sample(ImageSource(path, PurePosixPath(name)), labels.get(name)) for name, path in images.items()
    )


def ground_truth(
    tree: Tree, split: Split, names: Iterable[str]
) -> tuple[LabelFiles | None, Mapping[str, Path]]:
    """The first form of labels that all images have, or else the one that most have; None if none has any.

    Forms are not mixed, because the same number means different classes in them.
    """
    wanted = set(names)
    best: LabelFiles | None = None
    most: dict[str, str] = {}
    for form in tree.layout.labels:
        files = tree.files(form.path, split.folders)
        here = {name: files[name] for name in wanted & files.keys()}
        if len(here) > len(most):
            best, most = form, here
        if len(most) == len(wanted):
            break
    return best, {name: tree.root / file for name, file in most.items()}


def check_labels(
    tree: Tree,
    split: Split,
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    form: LabelFiles | None,
) -> None:
    """Every image must have ground truth.

    Raises:
        DatasetError: some have none; they are counted, and the first files expected are listed.
    """
    without = [name for name in images if name not in labels]
    if not without:
        return
    if form is None:
        missing = missing_labels(tree.root, tree.layout, split, without[0])
        raise _incomplete(tree.root, tree.layout, [missing], "complete the download")
    # The folder of each image's own split is not worth finding out for a message.
    pattern = Pattern.of(form.path, split.folders[0])
    expected = [str(pattern.path(tree.root, name)) for name in without]
    where = f"{tree.root} ({split.name})" if split.name else str(tree.root)
    have = "has" if len(without) == 1 else "have"
    raise DatasetError(
        f"{where}: {len(without):,} of {len(images):,} images {have} no label file: " + listed(expected),
        hint="complete the download, or name the images that have labels with --split list.txt",
    )


def check_parts(root: Path, layout: Layout, split: Split, *, labels: bool, asked: bool) -> None:
    """The folders and the list of a split must be there.

    Args:
        root: of the data set.
        layout: what it is taken for.
        split: which is wanted.
        labels: say it too if no image has ground truth; that alone is no error here.
        asked: whether the user named the split; else others are suggested.

    Raises:
        DatasetError: everything that is missing at once, with the first files expected.
    """
    if not missing_parts(root, layout, split, labels=False):
        return
    missing = missing_parts(root, layout, split, labels=labels)
    found = ((name, find_split(name, root, layout)) for name in layout.splits)
    others = [name for name, other in found if not missing_parts(root, layout, other, labels=labels)]
    hint = "complete the download"
    if others and not asked:
        hint = f"another split is there: --split {others[0]}"
    elif all(m.expected == split.file for m in missing):
        hint = f"--split {ALL} takes every image; --split list.txt those that a file of yours names"
    raise _incomplete(root, layout, missing, hint)


def _incomplete(root: Path, layout: Layout, missing: Sequence[Missing], hint: str) -> DatasetError:
    """The one error for a wrong or half-downloaded root."""
    parts = " and without ".join(dict.fromkeys(m.part for m in missing))
    expected = ", ".join(str(m.expected) for m in missing)
    return DatasetError(
        f"{root} looks like {layout.title} without {parts}; expected {expected} ...", hint=hint
    )
