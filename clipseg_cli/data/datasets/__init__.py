"""One file = one data set on the disk; the folder is the registry. Files with an underscore serve them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clipseg_cli.data.addresses import without_scheme
from clipseg_cli.data.datasets._benchmark import Purpose, open_benchmark
from clipseg_cli.data.datasets._choose import Choice, choose, known_layouts
from clipseg_cli.data.datasets._elsewhere import is_elsewhere, open_elsewhere
from clipseg_cli.data.datasets._own import open_folder, own_label_ids
from clipseg_cli.data.datasets._recognise import Found, recognise_in
from clipseg_cli.data.labels import read_label, read_values
from clipseg_cli.utils.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipseg_cli.data.datasets._layout import Layout
    from clipseg_cli.types import Dataset

DATASETS: Registry[Layout] = Registry(__name__, "DATASET", "data set")

FOLDER = "folder"
"""The data set that any folder of images is."""


def open_dataset(
    root: str | Path,
    *,
    benchmark: str | None = None,
    split: str | None = None,
    classes: str = "",
    background: str = "none",
    purpose: Purpose = "label",
    words: str = "prompt_names",
    prefer: Sequence[str] = (),
) -> Dataset:
    """Recognise the data set in a folder and list one split of it.

    Args:
        root: the folder that has the layout, or the one that it lies in (`VOCdevkit`); or a text file that lists
            images, or the address of a folder of images, for labelling.
        benchmark: a class list; also decides between data sets that share a folder. None: the first of
            `prefer` that the data set has, else its default.
        split: a name of the layout, "all" for every image, or a text file with one image name a line.
            None: the training split for labelling, the validation split for scoring.
        classes, background: for a folder of one's own, as `load_classes` takes them; a benchmark has its own.
        purpose: "score" needs the ground truth of every image; "label" takes it where it is.
        words: key of the benchmark's file with the words of each class; a benchmark without it uses
            `prompt_names`.
        prefer: benchmarks in order, for instance those that a protocol's source reports.

    Returns:
        The samples in the order of the split's list, or sorted by name. Names are unique.

    Raises:
        DatasetError: nothing that is known, several data sets, a half-downloaded one, or a bad list.
        UsageError: an unknown benchmark or split, or classes where the benchmark names them.
        ClassListError: as `load_classes`.
    """
    text = without_scheme(str(root))
    if is_elsewhere(text):
        return open_elsewhere(
            text, benchmark=benchmark, split=split, classes=classes, background=background, purpose=purpose
        )
    layouts, given = _layouts(), Path(text)
    choice = choose(given, layouts, benchmark=benchmark, classes=classes, prefer=prefer)
    choice = choice or Choice(FOLDER, given, None)
    layout = layouts[choice.name]
    if background.strip().lower() != "none" and not classes:
        choice = choice._replace(notes=(*choice.notes, "the classes are fixed: --background is not used"))
    if choice.benchmark is None:
        return open_folder(
            choice,
            layout,
            split=split,
            classes=classes,
            background=background,
            purpose=purpose,
            known=known_layouts(layouts),
        )
    return open_benchmark(
        choice, layout, benchmark=choice.benchmark, split=split, purpose=purpose, words=words
    )


def recognise(root: str | Path) -> list[Found]:
    """What a folder and those in it look like: name, root, complete; the folder itself first."""
    return recognise_in(Path(root), _layouts())


def _layouts() -> dict[str, Layout]:
    return {name: DATASETS.get(name) for name in DATASETS.names()}
