"""What the commands over a whole data set have in common: opening it, its unseen classes, how work is cut."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from clipseg_cli.config import InferenceConfig
from clipseg_cli.data.datasets import FOLDER, open_dataset, recognise
from clipseg_cli.data.image_files import find_images, nothing_left
from clipseg_cli.errors import UsageError, did_you_mean
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.types import ClassList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipseg_cli.config import DataConfig, Protocol, PseudolabelConfig
    from clipseg_cli.errors import ClipsegError
    from clipseg_cli.types import Dataset, ImageSource, Sample

PRESET = "preset"

Group = tuple[int, tuple["Sample", ...]]
"""Number of a group of images, and they."""


def open_data(config: DataConfig, purpose: Literal["label", "score"]) -> tuple[Dataset, Protocol]:
    """The data set with the words that the protocol wants, and the protocol as it is on that benchmark.

    Raises:
        ClipsegError: anything wrong with protocol, root, layout, benchmark, split or classes.
    """
    protocol = find_protocol(config.protocol, config.benchmark)
    background = config.background
    if background == "auto":  # things named in a folder of images; anything else says itself what it holds
        background = InferenceConfig.background if config.classes else "none"
    dataset = open_dataset(
        config.dataset,
        benchmark=config.benchmark,
        split=config.split,
        classes=config.classes,
        background=background,
        purpose=purpose,
        words=protocol.words,
        prefer=protocol.benchmarks,
    )
    if dataset.benchmark is not None and config.background not in ("auto", "none"):
        raise UsageError(
            f"--background is for a list of your own words; {dataset.benchmark} says itself what its classes are",
            hint="leave out --background",
        )
    return dataset, find_protocol(config.protocol, dataset.benchmark)


class FoundImages(NamedTuple):
    """The images of a data set, or of any folder.

    Attributes:
        sources: that can be used.
        failures: why others cannot.
        notes: what a user should be told once.
    """

    sources: Sequence[ImageSource]
    failures: Sequence[ClipsegError] = ()
    notes: tuple[str, ...] = ()


def images_of(config: DataConfig) -> FoundImages:
    """The images of a split of a data set, of all of it, or of any folder; never its label maps.

    Raises:
        ClipsegError: there are none.
    """
    if config.split or config.benchmark:
        dataset, _ = open_data(config, "label")
        return FoundImages([sample.source for sample in dataset.samples])
    root = Path(config.dataset)
    known = next((one for one in recognise(root) if one.complete), None) if root.is_dir() else None
    if known is not None:  # its label maps are PNGs as well
        classes = "thing" if known.name == FOLDER and not (known.root / "classes.txt").exists() else ""
        dataset = open_dataset(known.root, split="all", classes=classes)
        note = f"{known.root} is a data set ({dataset.title}): its images are taken, and no other file"
        return FoundImages([sample.source for sample in dataset.samples], (), (note,))
    found, failures = find_images((config.dataset,))
    if not found:
        raise nothing_left(failures)
    return FoundImages(found, failures)


def unseen_ids(dataset: Dataset, names: str) -> tuple[int, ...]:
    """Ids of the classes named by comma, or of the benchmark's published split for "preset", ascending.

    Raises:
        UsageError: a name that is no class, all classes, or a preset where there is none.
    """
    if not names.strip():
        return ()
    if names.strip() == PRESET:
        if not dataset.unseen:
            what = dataset.benchmark or "this folder"
            raise UsageError(
                f"there is no published unseen split of {what}", hint="name the classes: cow,sofa"
            )
        wanted: Sequence[str] = dataset.unseen
    else:
        wanted = [name.strip() for name in names.split(",")]
    known = {name.casefold(): i for i, name in enumerate(dataset.classes.names)}
    for name in wanted:
        if name.casefold() not in known:
            what = f"a class of {dataset.benchmark or dataset.root}"
            raise UsageError(f"unseen class '{name}' is not {what}", hint=did_you_mean(name, known))
    ids = sorted({known[name.casefold()] for name in wanted})
    if len(ids) == len(dataset.classes):
        raise UsageError("every class is unseen, so none is seen", hint="leave out --unseen")
    return tuple(ids)


def open_to_label(config: PseudolabelConfig) -> tuple[Dataset, Protocol, tuple[int, ...]]:
    """The data set and the protocol, and ids of the classes to fill where the others keep their ground truth.

    Raises:
        UsageError: one of --keep-labels and --unseen without the other.
        ClipsegError: as `open_data`; where ground truth is kept, an image without any.
    """
    dataset, protocol = open_data(config, "label")
    if config.keep_labels == "seen":  # the same images, but now all of them must have their ground truth
        dataset, protocol = open_data(replace(config, split=dataset.split or "all"), "score")
    unseen = unseen_ids(dataset, config.unseen)
    if config.keep_labels == "seen" and not unseen:
        hint = "name them, as in --unseen sofa,train" + (", or --unseen preset" if dataset.unseen else "")
        raise UsageError("--keep-labels seen needs to know which classes are unseen", hint=hint)
    if unseen and config.keep_labels != "seen":
        raise UsageError(
            "--unseen says which classes have no ground truth, but no ground truth is kept",
            hint="add --keep-labels seen, or leave out --unseen",
        )
    return dataset, protocol, unseen


def subset_classes(classes: ClassList, ids: tuple[int, ...]) -> ClassList:
    """Only the classes of these ids, renumbered from 0."""
    return ClassList(
        tuple(classes.names[i] for i in ids),
        tuple(classes.aliases[i] for i in ids),
        ids.index(classes.background) if classes.background in ids else None,
    )


def cut_into_groups(samples: Sequence[Sample], batch_size: int) -> list[Group]:
    """The units of work: always cut in the same way, so that whoever does one gets the same labels.

    Which images share a batch changes the last bits of their scores; so a group is done as a whole, by one
    process, again from its beginning if that was interrupted.
    """
    size = batch_images(batch_size)
    return [(i // size, tuple(samples[i : i + size])) for i in range(0, len(samples), size)]


def batch_images(batch_size: int) -> int:
    """How many images make a group, by the number of windows in one forward pass."""
    return min(64, max(1, batch_size // 2))


def list_hash(samples: Sequence[Sample]) -> str:
    """SHA-256 of the names of the images, in order: 64 hexadecimal digits."""
    names = "\n".join(s.source.name for s in samples)
    return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
