"""The Python API: a model in memory that labels images with any words, by the same loop as `clipseg segment`."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from clipseg_cli.api.arguments import (
    checked_config,
    checked_settings,
    checked_text,
    read_words,
    takes_options,
)
from clipseg_cli.api.inputs import decoder, require_many
from clipseg_cli.api.segmentation import Segmentation
from clipseg_cli.config import InferenceConfig
from clipseg_cli.config.options import INFERENCE
from clipseg_cli.errors import UsageError
from clipseg_cli.inference.auxiliary import maps_by_name
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.inference.stream import Stream
from clipseg_cli.inference.students import plan_student
from clipseg_cli.models.student.adapter import StudentModel
from clipseg_cli.runs.provenance import model_notes, run_info

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from typing import Literal, TypeAlias

    import torch
    from typing_extensions import Unpack

    from clipseg_cli.api.arguments import Words
    from clipseg_cli.api.inputs import ImageLike
    from clipseg_cli.api.keywords import ClipKeywords, StudentKeywords
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.types import ClassList, DecodedImage, DenseModel, RunInfo

    Decode: TypeAlias = Callable[[], DecodedImage]

logger = logging.getLogger(__name__)

KEPT_LISTS = 16
"""Class lists whose words stay embedded in one Segmenter."""


class Segmenter:
    """A CLIP, or a student of one, that stays in memory and labels images with the words of each call.

    Made by `from_pretrained` or `from_run`. Labels and scores are those that `clipseg segment` makes of the same
    images with the same options, to the last bit on the same device and number of threads.

    Several threads may share one Segmenter: each call has a result of its own, and the words of a class list are
    embedded once. On a CPU a call may then compute on fewer threads than alone, which changes the last bits of
    scores. What `segment_many` returns belongs to one thread.

    What is odd without being an error, as words that the bundled model was never taught, goes as a warning to the
    logger `clipseg_cli`.

    Attributes:
        name: architecture, or as in "student resnet101c".
        fingerprint: 16 hex digits; equal for equal weights.
        device: where it computes.
        classes: what a student was trained with, used where a call names no classes; None for a CLIP.

    Example:
        >>> import numpy as np
        >>> from clipseg_cli import Segmenter
        >>> segmenter = Segmenter.from_pretrained("emoji", device="cpu")
        >>> image = np.full((48, 64, 3), 255, dtype=np.uint8)
        >>> result = segmenter.segment(image, "cat,house|building")
        >>> result.classes.names
        ('background', 'cat', 'house')
        >>> result.labels.shape, result.labels.dtype
        ((48, 64), dtype('uint8'))
        >>> [r.labels.shape for r in segmenter.segment_many([image, image[:32]], ["cat", "dog"])]
        [(48, 64), (32, 64)]
    """

    def __init__(
        self,
        config: InferenceConfig,
        model: DenseModel,
        predictor: Callable[[ClassList, str | None], Predictor],
        device: torch.device,
    ) -> None:
        self._config, self._model, self._predictor_of = config, model, predictor
        self.name, self.fingerprint, self.device = model.name, model.fingerprint, device
        self.classes = model.card.classes if isinstance(model, StudentModel) else None
        self._kept: OrderedDict[tuple[ClassList, str | None], Predictor] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    @takes_options()
    def from_pretrained(
        cls,
        model: str = InferenceConfig.model,
        pretrained: str | os.PathLike[str] | None = None,
        *,
        hyperparameters: Mapping[str, object] | None = None,
        **options: Unpack[ClipKeywords],
    ) -> Segmenter:
        """Load a frozen CLIP; every argument is the option of `clipseg segment` with its name.

        Args:
            model: "emoji", the small model for drawings in this package, or an architecture of open_clip.
            pretrained: a tag of open_clip, or a file of weights; None takes openai, or the first tag.
            hyperparameters: of methods, refinements and regions, as in {"naclip.std": 3, "pamr.dilations": (8, 16)}.
            **options: their help.

        Raises:
            ClipsegError: an unknown name, a value out of range, or weights that cannot be fetched or read.
            TypeError: an argument of another type.
        """
        config = checked_config(
            model=model,
            pretrained=pretrained,
            hyperparameters=checked_settings(hyperparameters),
            **options,
        )
        plan = plan_clip(config, find_protocol(config.protocol))
        if option := maps_by_name(config):
            raise UsageError(
                f"maps of {option.strip('-')} are found by the names of files, and images in memory have none",
                hint="name a network or an algorithm, or use the command line",
            )
        backbone = plan.backbone()
        auxiliary = plan.auxiliary_networks(backbone)

        def predictor(classes: ClassList, benchmark: str | None) -> Predictor:
            # Some protocols differ from benchmark to benchmark.
            own = plan_clip(config, find_protocol(config.protocol, benchmark))
            return own.predictor(backbone, classes, auxiliary=auxiliary)

        return cls(config, backbone, predictor, plan.device)

    @classmethod
    @takes_options(INFERENCE)
    def from_run(cls, path: str | os.PathLike[str], **options: Unpack[StudentKeywords]) -> Segmenter:
        """Load a student; it sees images as in training, whole, where no sizes are given.

        Args:
            path: a run of `clipseg train` (its last checkpoint), RUN/best, RUN/last, or one checkpoint.
            **options: their help.

        Raises:
            ClipsegError: no student there, damaged files, or a value out of range.
            TypeError: an argument of another type.
        """
        config = checked_config(student=checked_text(path, "path"), **options)
        plan = plan_student(config)
        model = plan.model()
        return cls(config, model, lambda classes, _: plan.predictor(model, classes), plan.device)

    def segment(
        self,
        image: ImageLike,
        classes: Words | None = None,
        *,
        background: str | None = InferenceConfig.background,
        class_scores: bool = False,
    ) -> Segmentation:
        """Label every pixel of one image.

        Args:
            image: the name of a file, the bytes of one, a Pillow image, or an array: uint8 [H, W, 3] RGB,
                [H, W, 4] RGBA, [H, W] grey, or uint16 [H, W] grey. Transparency is laid on white and EXIF
                orientation applied, as for files.
            classes: names by comma with synonyms by bar ("cat,couch|sofa"), the name of a benchmark, or a text
                file; or a list of names, each again with synonyms by bar, which is never taken for a file; or
                a ClassList as it is. None takes a student's own.
            background: words by comma that together become the class "background"; None for a closed set. Not
                used with a ClassList or a student's own classes, which have their own.
            class_scores: let `Segmentation.class_scores` give the probability map of any single class; it holds
                about 12 bytes a pixel until it is dropped.

        Returns:
            Labels and scores [H, W] at the image's own size, upright.

        Raises:
            ClipsegError: the image cannot be read, or the class list is malformed.
            TypeError: neither image nor classes of a known type.
        """
        predictor = self._predictor(classes, background)
        prepared = predictor.prepare(self._decode(image, "image"))
        result = next(predictor.predict([prepared], class_scores=class_scores))
        return Segmentation.of(result, self._run_of(predictor))

    def segment_many(
        self,
        images: Iterable[ImageLike],
        classes: Words | None = None,
        *,
        background: str | None = InferenceConfig.background,
        class_scores: bool = False,
        errors: Literal["raise", "return", "skip"] = "raise",
    ) -> Iterator[Segmentation | Exception]:
        """Label images in batches, in order; they are decoded beside the model, a bounded number ahead.

        A list or a tuple of images is cut up as `clipseg segment` does it. Of any other iterable, which may be
        endless, some batches are taken ahead; an array or a Pillow image may be changed or closed by then.

        Args:
            images: images as for `segment`.
            classes, background, class_scores: as for `segment`.
            errors: "raise" ends the iteration at a bad image; "return" gives the error in its place, and goes on
                with the others; "skip" logs it as a warning instead, and gives nothing for that image.

        Yields:
            As `segment`; with `errors="return"` a ClipsegError or TypeError for each image that cannot be used.

        Raises:
            ClipsegError: as `segment`; a message about an image without a file name counts from 0, as in "image 3".
            TypeError: as `segment`, or one image instead of many.
            UsageError: another `errors`.
        """
        require_many(images)
        if errors not in ("raise", "return", "skip"):
            raise UsageError(f"errors '{errors}' is none of raise, return and skip")
        predictor = self._predictor(classes, background)
        return self._many(images, predictor, class_scores=class_scores, errors=errors)

    def __repr__(self) -> str:
        return f"<Segmenter {self.name} / {self._model.pretrained} on {self.device}>"

    def _many(
        self, images: Iterable[ImageLike], predictor: Predictor, *, class_scores: bool, errors: str
    ) -> Generator[Segmentation | Exception, None, None]:
        run = self._run_of(predictor)

        def read(decode: Decode) -> Prepared | Exception:
            try:
                return predictor.prepare(decode())
            except TypeError as error:
                return error

        stream: Stream[Decode, Segmentation | Exception] = Stream(
            predictor,
            self._config,
            read,
            finish=lambda _, result: Segmentation.of(result, run),
            failed=lambda _, error: error,
            class_scores=class_scores,
        )
        numbered = ((image, f"image {i}") for i, image in enumerate(images))
        if isinstance(images, (list, tuple)):
            late: list[Decode] = [partial(self._decode, *item) for item in numbered]
            labelled = stream.fastest(late)
        else:  # what it gives may be changed or closed as soon as it is asked for the next
            labelled = stream.batched(self._decoder(*item) for item in numbered)
        with closing(labelled):
            for result in labelled:
                if isinstance(result, Exception):
                    if errors == "raise":
                        raise result
                    if errors == "skip":
                        logger.warning("left out: %s", result)
                        continue
                yield result

    def _run_of(self, predictor: Predictor) -> RunInfo:
        return run_info(self._config, self._model, predictor)

    def _decoder(self, image: ImageLike, name: str) -> Decode:
        return decoder(image, name, max_megapixels=self._config.max_megapixels)

    def _decode(self, image: ImageLike, name: str) -> DecodedImage:
        return self._decoder(image, name)()

    def _predictor(self, words: Words | None, background: str | None) -> Predictor:
        if words is not None:
            classes, benchmark = read_words(words, background, self._config.protocol)
        elif self.classes is not None:
            classes, benchmark = self.classes, None
        else:
            raise UsageError("no classes were named", hint='as in segment(image, "cat,dog")')
        with self._lock:
            predictor = self._kept.pop((classes, benchmark), None)
            if predictor is None:
                predictor = self._predictor_of(classes, benchmark)
                for note in (*model_notes(self._model, predictor.classes), *predictor.notes):
                    logger.warning(note)
            self._kept[classes, benchmark] = predictor
            while len(self._kept) > KEPT_LISTS:
                self._kept.popitem(last=False)
        return predictor
