"""`clipseg segment`: files in, label maps and pictures out; reading and writing run beside the model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipseg_cli.data.classes import load_classes
from clipseg_cli.data.image_files import find_images
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ClipsegError, DiskFullError, ImageError, OutputError
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.inference.stream import Stream
from clipseg_cli.inference.students import plan_student
from clipseg_cli.outputs import WRITERS, write_run_info
from clipseg_cli.runs.provenance import notes, run_info
from clipseg_cli.utils.device import describe_device
from clipseg_cli.utils.files import ANOTHER_FOLDER, check_writable

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from clipseg_cli.config import InferenceConfig, SegmentConfig
    from clipseg_cli.inference.load import ModelPlan
    from clipseg_cli.inference.predictor import Predictor, Prepared
    from clipseg_cli.inference.students import StudentPlan
    from clipseg_cli.types import ClassList, DenseModel, ImageSource, Segmentation, Writer


@dataclass(frozen=True)
class ImageResult:
    """What became of one input.

    Attributes:
        name: the input as the user knows it.
        segmentation: None when it failed.
        written: files made.
        error: why it failed.
    """

    name: str
    segmentation: Segmentation | None = None
    written: tuple[Path, ...] = ()
    error: ClipsegError | None = None


def prepare_segmentation(config: SegmentConfig) -> SegmentRun:
    """Check every option, cheap ones first, then load the model and embed the words.

    Raises:
        ClipsegError: anything wrong with options, inputs, output folder or model.
    """
    plan, classes = plan_segmentation(config)
    sources, failures = find_images(config.images, exclude=(config.out,))
    if not sources:
        raise _nothing_left(failures)
    if any(source.path for source in sources):
        check_writable(config.out)
    _check_inputs_stay(sources, config.out)
    backbone, predictor = plan.load(classes, class_scores=config.heatmaps)
    return SegmentRun(config, backbone, predictor, sources, failures)


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


class SegmentRun:
    """A prepared run; iterating it does the work and yields an `ImageResult` for every input.

    Attributes:
        total: number of inputs.
        device: where it computes, for people.
        model: architecture and weights, for people.
        classes: what the labels mean.
        notes: what a user should be told once.
        finished: inputs whose files are all written; ahead of what iterating has yielded.
    """

    def __init__(
        self,
        config: SegmentConfig,
        backbone: DenseModel,
        predictor: Predictor,
        sources: Sequence[ImageSource],
        failures: Sequence[ImageError],
    ) -> None:
        self.config, self.predictor = config, predictor
        self.sources, self.failures = sources, failures
        self.total = len(sources) + len(failures)
        self.device = describe_device(predictor.device)
        self.model = f"{backbone.name} / {backbone.pretrained}"
        self.classes: ClassList = predictor.classes
        self.finished: list[str] = []
        self.notes = tuple(notes(config, backbone, self.classes))
        self._info = run_info(config, backbone, predictor)
        self._writers: list[Writer] = [
            writer
            for name in WRITERS.names()
            for writer in [WRITERS.get(name)]
            if writer.default or (name == "heatmaps" and config.heatmaps)
        ]

    def __iter__(self) -> Generator[ImageResult, None, None]:
        """Results in input order; those that were not found come first.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the files being written are finished, as after close().
            DiskFullError: nothing more can be written; what is finished stays.
        """
        for failure in self.failures:
            yield ImageResult(failure.image or failure.message, error=failure)
        if any(source.path for source in self.sources):
            write_run_info(self._info, self.config.out)
        stream = Stream(
            self.predictor,
            read=self._read,
            finish=self._write,
            batch_size=self.config.batch_size,
            workers=self.config.workers,
        )
        yield from stream.fastest(self.sources)

    def _read(self, source: ImageSource) -> Prepared | ImageResult:
        try:
            image = read_image(source, max_megapixels=self.config.max_megapixels)
            return self.predictor.prepare(image)
        except ClipsegError as error:
            return ImageResult(str(source), error=error)

    def _write(self, source: ImageSource, result: Segmentation) -> ImageResult:
        written: list[Path] = []
        if source.path is not None:
            stem = self.config.out / source.relative
            try:
                for writer in self._writers:
                    written += writer.write(result, stem)
            except DiskFullError:
                raise  # every later file would fail in the same way
            except ClipsegError as error:
                return ImageResult(str(source), error=error)
        result.shares()  # counted here, beside the model, and kept
        self.finished.append(str(source))
        return ImageResult(str(source), result, tuple(written))


def _check_inputs_stay(sources: Sequence[ImageSource], out: Path) -> None:
    """Refuse an output folder where a result would take the name of a picture that was given.

    Raises:
        OutputError: it would; nothing has been written.
    """
    # A link is replaced by its own name, the file behind it by the name it really has.
    pictures = {p for s in sources if s.path for p in (_real(s.path), Path(os.path.realpath(s.path)))}
    for source in (s for s in sources if s.path):
        stem = _real(out / source.relative)
        for name in WRITERS.names():
            target = stem.with_name(stem.name + WRITERS.get(name).ending)
            if target in pictures:
                raise OutputError(
                    f"{target} is one of the input pictures and would be written over", hint=ANOTHER_FOLDER
                )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path.parent), path.name)


def _nothing_left(failures: Sequence[ImageError]) -> ImageError:
    """The one error to show when no input can be used at all."""
    if len(failures) == 1:
        return failures[0]
    listed = "; ".join(failure.message for failure in failures[:3])
    return ImageError(f"none of the {len(failures)} inputs can be used: {listed}", hint=failures[0].hint)
