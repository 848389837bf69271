"""`clipseg segment`: files in, label maps and images out; reading and writing run beside the model."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.commands.watch import check_watched
from clipseg_cli.config import SegmentConfig
from clipseg_cli.data.classes import load_classes
from clipseg_cli.data.image_files import nothing_left
from clipseg_cli.data.images import read_image
from clipseg_cli.data.inputs import find_inputs
from clipseg_cli.data.labels import read_values
from clipseg_cli.errors import ClipsegError, ImageError, OutputError, UsageError
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.inference.stream import Stream
from clipseg_cli.inference.students import plan_student
from clipseg_cli.ops.components import absorb_small
from clipseg_cli.outputs import (
    FORMATS,
    Outputs,
    check_class_list,
    folder_for,
    format_names,
    refuse_strangers,
    shown_name,
    write_run_info,
)
from clipseg_cli.runs.derived import forget_derived, replacing_derived
from clipseg_cli.runs.human import human_labels
from clipseg_cli.runs.human_changes import complete_changes
from clipseg_cli.runs.provenance import notes, run_info
from clipseg_cli.utils.device import describe_device
from clipseg_cli.utils.files import ANOTHER_FOLDER, check_writable, settle, sweep_leftovers
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.inference.load import ModelPlan
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.inference.students import StudentPlan
    from clipseg_cli.types import ClassList, DenseModel, ImageSource, RunInfo, Segmentation


@dataclass(frozen=True)
class ImageResult:
    """What became of one input.

    Attributes:
        name: the input as the user knows it.
        segmentation: None when it failed.
        written: format -> files made.
        error: why it failed.
    """

    name: str
    segmentation: Segmentation | None = None
    written: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    error: ClipsegError | None = None


def prepare_segmentation(
    config: SegmentConfig, found: tuple[list[ImageSource], list[ImageError]] | None = None
) -> SegmentRun:
    """Check every option, cheap ones first, then load the model and embed the words.

    Args:
        config: all options.
        found: the result of `data.inputs.find_inputs`, where somebody has looked already.

    Raises:
        ClipsegError: anything wrong with options, inputs, output folder or model.
    """
    plan, classes = plan_segmentation(config)
    names = format_names(config.format_texts)
    sources, failures = found or find_inputs(config)
    if config.watch:
        failures = check_watched(config.images, failures)
    elif not sources:
        raise nothing_left(failures)
    out, more, human = config.out, list[str](), frozenset[str]()
    if config.watch or any(source.path for source in sources):
        if out == SegmentConfig.out:  # the default belongs to nobody: another list of words gets its own
            out = folder_for(out, classes)
            if out != config.out:
                more.append(f"{config.out} holds label maps of other classes; writing to {out}")
        check_class_list(out, classes)
        check_writable(out)
        _check_targets(sources, out, names)
        human = _kept(out)
    before = len(sources)
    if config.skip_existing or config.watch:
        sources = unfinished(sources, out, names)
    if own := sorted(human & {str(source.relative) for source in sources}):
        were = "label was" if len(own) == 1 else "labels were"
        more.append(f"{len(own)} {were} corrected or checked by hand, and kept: {listed(own, 3)}")
    backbone, predictor = plan.load(
        classes, class_scores=any(FORMATS.get(name).class_scores for name in names)
    )
    info = run_info(config, backbone, predictor)
    outputs = Outputs(names, info, out, plan.chosen.hyperparameters)
    said = (*more, *predictor.notes, *notes(config, backbone, predictor.classes))
    skipped = before - len(sources)
    return SegmentRun(
        config, backbone, predictor, sources, failures, info, outputs, out, said, skipped, human
    )


def plan_segmentation(config: InferenceConfig) -> tuple[ModelPlan | StudentPlan, ClassList]:
    """A CLIP or a student, checked but not loaded, and the classes; without words those of the student itself.

    Raises:
        ClipsegError: anything wrong with the options of the model, or with the words.
    """
    if config.student:
        student = plan_student(config)
        if not config.classes:
            return student, student.card.classes
        return student, load_classes(config.classes, background=config.background)
    protocol = find_protocol(config.protocol, config.classes.strip())
    classes = load_classes(config.classes, background=config.background, words=protocol.words)
    return plan_clip(config, protocol), classes


@dataclass(eq=False)
class SegmentRun:
    """A prepared run; iterating it does the work and yields an `ImageResult` for every input.

    Attributes:
        config: the options.
        backbone: the model.
        predictor: the loop over it.
        sources, failures: inputs, and those that were not found.
        info: what is recorded beside the results.
        outputs: the formats that are written.
        out: where the files go.
        notes: what a user should be told once.
        skipped: images that were labelled before.
        human: names of images whose labels a human answers for: they stay, and the other formats are made of them.
        total: number of inputs.
        device: where it computes, for people.
        model: architecture and weights, for people.
        classes: what the labels mean.
        finished: inputs whose files are all written; ahead of what iterating has yielded.
    """

    config: SegmentConfig
    backbone: DenseModel
    predictor: Predictor
    sources: Sequence[ImageSource]
    failures: Sequence[ImageError]
    info: RunInfo
    outputs: Outputs
    out: Path
    notes: tuple[str, ...]
    skipped: int = 0
    human: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.total = len(self.sources) + len(self.failures)
        self.device = describe_device(self.predictor.device, self.predictor.dtype)
        self.model = f"{self.backbone.name} / {self.backbone.pretrained}"
        self.classes: ClassList = self.predictor.classes
        self.finished: list[str] = []

    def of(self, sources: Sequence[ImageSource], failures: Sequence[ImageError]) -> SegmentRun:
        """The same run over other images.

        Raises:
            OutputError: a result would take the name of an image, or of somebody else's file.
        """
        _check_targets(sources, self.out, format_names(self.config.format_texts))
        human = _kept(self.out)  # somebody may have corrected some meanwhile
        return dataclasses.replace(self, sources=sources, failures=failures, skipped=0, human=human)

    def __iter__(self) -> Generator[ImageResult, None, None]:
        """Results in input order; those that were not found come first.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the files being written are finished, as after close().
            DiskFullError: nothing more can be written; what is finished stays.
        """
        for failure in self.failures:
            yield ImageResult(failure.image or failure.message, error=failure)
        files = any(source.path for source in self.sources)
        if files:
            sweep_leftovers({(self.out / source.relative).parent for source in self.sources} | {self.out})
            write_run_info(self.info, self.out)
            self.outputs.begin()
        stream = Stream(self.predictor, self.config, self._read, self._write, self._failed)
        try:
            yield from stream.fastest(self.sources)
        finally:  # what describes all results describes those that are there, however this ends
            if files and self.finished:
                self.outputs.end(partial(replacing_derived, self.out))
                forget_derived(self.out, format_names(self.config.format_texts))
                settle()

    def _read(self, source: ImageSource) -> Prepared | ImageResult:
        return self.predictor.prepare(read_image(source, max_megapixels=self.config.max_megapixels))

    def _write(self, source: ImageSource, result: Segmentation) -> ImageResult:
        stem = self.out / source.relative
        if str(source.relative) in self.human:
            result = _by_hand(result, stem.with_name(f"{stem.name}.png"))
            written = self.outputs.write(result, stem, without="labels")
        else:
            if self.config.min_area:
                result = dataclasses.replace(result, labels=absorb_small(result.labels, self.config.min_area))
            written = {} if source.path is None else self.outputs.write(result, stem)
        result.shares()  # counted here, beside the model, and kept
        self.finished.append(str(source))
        return ImageResult(str(source), result, written)

    def _failed(self, source: ImageSource, error: ClipsegError) -> ImageResult:
        return ImageResult(str(source), error=error)


def _kept(out: Path) -> frozenset[str]:
    """The names of images in a folder whose labels a human answers for."""
    complete_changes(out)
    return frozenset(human_labels(out))


def _by_hand(result: Segmentation, path: Path) -> Segmentation:
    """The result with the labels of a human, who is sure of them.

    Raises:
        DatasetError: the image has another size by now.
    """
    height, width = result.labels.shape
    values: Any = read_values(path, size=(height, width), source=str(result.image.source))
    return dataclasses.replace(
        result, labels=values.astype(result.labels.dtype), scores=np.ones((height, width), np.float32)
    )


def _check_targets(sources: Sequence[ImageSource], out: Path, names: Sequence[str]) -> None:
    """Refuse an output folder where a result would take the name of an input, or of somebody else's file.

    Raises:
        OutputError: it would; nothing has been written.
    """
    # A link is replaced by its own name, the file behind it by the name it really has.
    inputs = {p for s in sources if s.path for p in (_real(s.path), Path(os.path.realpath(s.path)))}
    for source in (s for s in sources if s.path):
        stem = _real(out / source.relative)
        for ending in filter(None, (FORMATS.get(name).ending for name in names)):
            target = stem.with_name(stem.name + ending)
            if target in inputs:
                raise OutputError(
                    f"{target} is one of the input images and would be written over", hint=ANOTHER_FOLDER
                )
            if target.suffix and os.path.lexists(target):
                refuse_strangers(target)


def unfinished(sources: Sequence[ImageSource], out: Path, names: Sequence[str]) -> list[ImageSource]:
    """The images that lack a file of a format, or have changed since it was written.

    Files are written whole or not at all, so that one that is there is complete.

    Raises:
        UsageError: a format is one file about all images, of which nothing says whether an image is in it.
    """
    endings = {name: FORMATS.get(name).ending for name in names}
    if whole := [shown_name(name) for name, ending in endings.items() if not ending]:
        raise UsageError(
            f"--formats {','.join(whole)} is one file about all images, and each image's own files say what is done",
            hint=f"leave it out, and make it of the finished labels: clipseg convert {out}",
        )

    def is_finished(source: ImageSource) -> bool:
        if source.path is None:
            return False
        stem = out / source.relative
        try:
            oldest = min(stem.with_name(stem.name + e).stat().st_mtime for e in endings.values())
            return oldest >= source.path.stat().st_mtime
        except OSError:
            return False

    return [source for source in sources if not is_finished(source)]


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path.parent), path.name)
