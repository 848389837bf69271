"""Label PNGs in a folder, read again as results: of `segment`, of a run of `pseudolabel`, or of other tools."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli import __version__
from clipseg_cli.config import ignore_value
from clipseg_cli.data.classes import load_classes
from clipseg_cli.data.datasets import open_dataset
from clipseg_cli.data.image_files import find_images
from clipseg_cli.data.images import image_size, read_image
from clipseg_cli.data.labels import label_texts, read_values
from clipseg_cli.errors import ClipsegError, DatasetError, ImageError, RunError
from clipseg_cli.outputs import json_safe
from clipseg_cli.outputs.confidence import ENDING as CONFIDENCE
from clipseg_cli.outputs.confidence import ONE
from clipseg_cli.outputs.labels import ENDING, facts_in
from clipseg_cli.outputs.yolo_seg import FILE as YOLO_FILE
from clipseg_cli.outputs.yolo_seg import FOLDER as YOLO
from clipseg_cli.runs.human import home_of, human_labels
from clipseg_cli.runs.human_changes import complete_changes
from clipseg_cli.runs.manifest import FILE as MANIFEST
from clipseg_cli.runs.manifest import read_manifest
from clipseg_cli.runs.records import file_fingerprint, read_removed
from clipseg_cli.runs.summary import LABELS
from clipseg_cli.types import ClassList, DecodedImage, ImageSource, RunInfo, Segmentation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from clipseg_cli.runs.manifest import Manifest
    from clipseg_cli.types import Dataset

CLASSES = "classes.json"
NO_CONFIDENCE = "label PNGs do not hold how sure the model was: confidence is left out where it would stand"
_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class LabelFolder:
    """Label maps that were found, not read yet.

    Attributes:
        folder: that was named.
        run: with what they were made, as far as that is known.
        files: name of an image, without suffix -> its label PNG, sorted.
        images: name of an image -> the image, as far as they were found.
        has_confidence: whether there are files of the format "confidence" beside the label PNGs.
        notes: what a user should be told once.
        human: images whose labels a human answers for, who is sure of them.
    """

    folder: Path
    run: RunInfo
    files: Mapping[PurePosixPath, Path]
    images: Mapping[PurePosixPath, Path] = field(default_factory=dict)
    has_confidence: bool = False
    notes: tuple[str, ...] = ()
    human: frozenset[str] = frozenset()

    def fingerprint(self, name: PurePosixPath) -> str:
        """Of all that a result depends on: the label PNG, the confidence beside it, and whether a human answers for it.

        Empty where the label cannot be read.
        """
        path = self.files[name]
        parts = [file_fingerprint(path)]
        if parts[0] and _beside(path).is_file():
            parts.append(file_fingerprint(_beside(path)))
        if parts[0] and str(name) in self.human:
            parts.append("human")
        return "+".join(parts)

    def read(self, name: PurePosixPath, *, pixels: bool = False) -> Segmentation:
        """The result of one image; may run in several threads at once.

        Confidences are those in the file of the format "confidence" beside it, 1 instead of them where the label is a
        human's; without such a file NaN.

        Args:
            name: of the image.
            pixels: whether the image itself is read; else it has none.

        Raises:
            ClipsegError: a file that cannot be read, of another size, or with a value that is no class.
        """
        path, image = self.files[name], self.images.get(name)
        classes = self.run.classes
        facts = facts_in(label_texts(path)) or {}
        names = json_safe(classes.names)
        if str(name) in self.human:  # made before the class list of its run has grown, with the same ids
            names = names[: len(facts.get("classes", ()))]
        if "classes" in facts and list(facts["classes"]) != names:
            raise DatasetError(
                f"{path} has other classes than {self.folder}: {_listed(facts['classes'])}",
                hint="one folder has one class list: convert the others by themselves",
            )
        size = None if image is None else image_size(image)
        values = read_values(path, size=size, source=str(image))
        _check_values(values, len(classes), path)
        narrow: Any = np.uint8 if len(classes) <= ignore_value(1) else np.uint16
        source = ImageSource(image, name, "" if image else str(facts.get("file", "")))
        decoded = DecodedImage(source, _NO_PIXELS)
        if pixels:
            if image is None:
                raise ImageError(f"{name}: the image was not found", hint="name their folder with --images")
            decoded = read_image(source, max_megapixels=float("inf"))
        scores = _scores(path, values.shape)
        if str(name) in self.human and _beside(path).is_file():
            scores = np.broadcast_to(np.float32(1), values.shape)
        return Segmentation(values.astype(narrow, copy=False), scores, classes, decoded)


def open_labels(
    text: str, *, classes: str = "", images: str = "", fallback: ClassList | None = None
) -> LabelFolder:
    """Find the label maps in a folder, what they mean and where their images are.

    Args:
        text: the folder: of `segment`, a run of `pseudolabel` or its `labels`, or label PNGs of any tool.
        classes: as `load_classes` takes them, for PNGs that nothing explains; ids count from 0.
        images: folder of the images; a run knows its own.
        fallback: what the values mean where neither the folder nor `classes` says so; None refuses such a folder.

    Raises:
        ClipsegError: no such folder, no label PNG in it, nothing that says what they mean, or a damaged record.
    """
    folder = Path(text)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder", hint="name a run, or a folder of label PNGs")
    complete_changes(home_of(folder))
    home = run_home(folder)
    inside = folder if home is None else home / LABELS
    files = dict(_label_files(inside))
    sure = any(_beside(path).is_file() for path in files.values())
    if not files:
        raise RunError(f"{inside} holds no label PNG", hint="make some with clipseg segment or pseudolabel")
    left: list[PurePosixPath] = []
    if home is not None:
        left = [name for name in map(PurePosixPath, sorted(read_removed(home))) if name in files]
        for name in left:
            del files[name]
        run, known = _of_run(home)
    else:
        run, known = _of_folder(folder, next(iter(files.values())), classes, fallback), {}
    if classes and (home is not None or (folder / CLASSES).is_file()):
        raise RunError(f"{home or folder} says itself what its labels mean", hint="leave out --classes")
    if images:
        found, failures = find_images([images], twins="suffix")
        if not found:
            raise failures[0]
        known = {source.relative: source.path for source in found if source.path is not None}
    own = {name: known[name] for name in files if name in known}
    notes = []
    if left:
        of = "label of an image that has" if len(left) == 1 else "labels of images that have"
        verb = "is" if len(left) == 1 else "are"
        notes.append(f"{len(left):,} {of} left the data set {verb} left out, such as {left[0]}")
    if not sure:
        notes.append(NO_CONFIDENCE)
    if len(own) < len(files) and (images or home is not None):
        where = images or "the data set of the run"
        notes.append(f"{len(files) - len(own):,} of {len(files):,} images were not found in {where}")
    elif not own:
        notes.append("where the images are is not known: files name them, and lead to none; see --images")
    human = frozenset(human_labels(home_of(folder)))
    return LabelFolder(folder, run, files, own, sure, tuple(notes), human)


def run_home(folder: Path) -> Path | None:
    """The run of `pseudolabel` that a folder is, or whose `labels` it is; None for any other folder."""
    home = folder if (folder / MANIFEST).is_file() else folder.parent
    is_run = (home / MANIFEST).is_file() and (home / LABELS).is_dir() and folder in (home, home / LABELS)
    return home if is_run else None


def dataset_of_run(manifest: Manifest) -> Dataset | None:
    """The data set that a run of `pseudolabel` is about; None where it was moved or removed since."""
    data = manifest.identity["dataset"]
    try:
        return open_dataset(
            data["root"],
            benchmark=data["benchmark"],
            split=data["split"] or None,
            classes="" if data["benchmark"] else manifest.identity["options"]["classes"],
        )
    except ClipsegError:
        return None


def _label_files(folder: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    """The PNGs in a folder that may be label maps, by the names of their images."""
    found = [
        path
        for path in sorted(folder.rglob(f"*{ENDING}"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    there = set(found)
    copies = folder / YOLO if (folder / YOLO / YOLO_FILE).is_file() else None
    for path in found:
        if path.name.endswith(CONFIDENCE):  # of the label map beside it
            owner = path.with_name(path.name[: -len(CONFIDENCE)] + ENDING)
            if owner in there:
                continue
        if copies is None or not path.is_relative_to(copies):
            yield PurePosixPath(path.relative_to(folder).as_posix()[: -len(ENDING)]), path


def _of_run(home: Path) -> tuple[RunInfo, dict[PurePosixPath, Path]]:
    """With what a run of `pseudolabel` was made, and its images as far as they are still there."""
    manifest = read_manifest(home)
    if manifest is None or manifest.identity.get("kind") != "pseudolabel":
        raise RunError(f"{home} is no run of pseudolabel", hint="name a folder of label PNGs")
    known = manifest.identity
    options = {**known["options"], "method": known["method"]}
    run = RunInfo(_class_list(known), options, known["model"], known["versions"])
    dataset = dataset_of_run(manifest)
    if dataset is None:  # its images are named, and lead to none
        return run, {}
    sources = (sample.source for sample in dataset.samples)
    return run, {source.relative: source.path for source in sources if source.path is not None}


def _of_folder(folder: Path, first: Path, classes: str, fallback: ClassList | None) -> RunInfo:
    """What `classes.json` says, or the first label PNG of itself, or else the user.

    Raises:
        ClipsegError: none of them.
    """
    path = folder / CLASSES
    if path.is_file():
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return RunInfo(_class_list(data), data["options"] or {}, data["model"] or {}, data["versions"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise RunError(f"{path} is damaged, or was not made by clipseg: {error}") from error
    versions = {"clipseg": __version__}
    facts = facts_in(label_texts(first)) or {}
    if "classes" in facts and not classes:
        names = tuple(map(str, facts["classes"]))
        own = ClassList(names, tuple((name,) for name in names), facts.get("background"))
        return RunInfo(own, {}, {}, versions)
    if not classes and fallback is not None:
        return RunInfo(fallback, {}, {}, versions)
    if not classes:
        raise RunError(
            f"nothing says what the values in {folder} mean: there is no {CLASSES}",
            hint="give the folder of a run; or, where the command has --classes, those of the values 0, 1, 2 ...",
        )
    return RunInfo(load_classes(classes), {}, {}, versions)


def _class_list(data: Mapping[str, Any]) -> ClassList:
    rows = sorted(data["classes"], key=lambda row: int(row["id"]))
    return ClassList(
        tuple(row["name"] for row in rows), tuple(tuple(row["words"]) for row in rows), data["background"]
    )


def _check_values(values: NDArray[Any], classes: int, path: Path) -> None:
    """Refuse a map with values that are no class.

    Raises:
        DatasetError: the message names file and value.
    """
    ignore = ignore_value(classes)
    wrong = (values >= classes) & (values != ignore)
    if wrong.any():
        raise DatasetError(
            f"{path} holds {values[wrong].flat[0]} in {int(wrong.sum()):,} pixels, which is no class: "
            f"ids go from 0 to {classes - 1}, {ignore} is none",
            hint="were these labels made with another class list?",
        )


def _beside(path: Path) -> Path:
    """Where the confidence of a label map lies, if it was written."""
    return path.with_name(path.name[: -len(ENDING)] + CONFIDENCE)


def _scores(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """[H, W] confidences of a label map, NaN where nobody knows them.

    Raises:
        DatasetError: the file beside it cannot be read, or has another size.
    """
    beside = _beside(path)
    facts = facts_in(label_texts(beside)) if beside.is_file() else None
    if facts is None or facts.get("confidence") != ONE:
        return np.broadcast_to(np.float32(np.nan), shape)
    grey = read_values(beside, size=(shape[0], shape[1]), source=str(path))
    return np.asarray(grey / np.float32(ONE), np.float32)


def _listed(names: list[str]) -> str:
    return ", ".join(map(str, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
