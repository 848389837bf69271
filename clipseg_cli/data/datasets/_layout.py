"""How the files of a data set lie on the disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class LabelFiles:
    """One form in which the ground truth of a data set lies on the disk.

    Attributes:
        path: of the file of one image, below the root, with the fields of `Layout.images`.
        values: benchmark -> value in the file -> class id, or -1 for "ignore". Any other value is an error.
        are: how they count, for people ("train ids").
    """

    path: str
    values: Mapping[str, Mapping[int, int]]
    are: str = ""


@dataclass(frozen=True)
class Layout:
    """How a data set lies on the disk; a file in `data/datasets/` that declares DATASET is in the registry.

    Attributes:
        title: for people ("PASCAL VOC 2012").
        images: the file of one image, below the root ("images/{split}/{name}.jpg"). `{split}` is the folder
            of a split, `{name}` the image's name in the data set and may hold slashes; the ending `.*`
            means any kind of image.
        labels: forms of the ground truth; the first that is complete counts.
        benchmarks: names of class lists, the default first; none for classes of the user's own.
        splits: name -> what `{split}` stands for.
        split_file: the list of a split's images, below the root; "" where the folders tell.
        marks: paths below a root; any of them shows that it is one.
        home: what the root is usually called, which decides between two of the same kind.
        first: split -> name of an image, to say which files are expected.
        gives_way_to: data sets that a root is taken for rather than for this one, if it has all of both.
        label_split, score_split: the defaults for labelling and for scoring.
    """

    title: str
    images: str
    labels: tuple[LabelFiles, ...]
    benchmarks: tuple[str, ...]
    splits: Mapping[str, str]
    split_file: str = ""
    marks: tuple[str, ...] = ()
    home: str = ""
    first: Mapping[str, str] = field(default_factory=dict)
    gives_way_to: tuple[str, ...] = ()
    label_split: str = "train"
    score_split: str = "val"
