"""`clipseg index FOLDER`: a bank of the regions of unlabelled images, in shards; a second run resumes the first."""

from __future__ import annotations

import dataclasses
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

from clipseg_cli.commands.index import IndexedImage
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ClipsegError, DiskFullError, ImageError, RunError, UsageError
from clipseg_cli.inference.banks import reading_of
from clipseg_cli.inference.dataset import images_of
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.inference.remember import read_regions
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.memory.files import REGIONS, Facts, begin, content_of, finish
from clipseg_cli.memory.shards import SHARDS, ShardWriter, known_images, remove_unused
from clipseg_cli.types import ClassList
from clipseg_cli.utils.device import describe_device
from clipseg_cli.utils.files import check_writable, open_input, sweep_leftovers

if TYPE_CHECKING:
    from collections.abc import Generator
    from concurrent.futures import Future

    from clipseg_cli.config import IndexConfig
    from clipseg_cli.inference.dataset import FoundImages
    from clipseg_cli.inference.load import ModelPlan
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.types import Guide, ImageSource

SOURCE = "superpixels"
"""Of regions, where none is named: they need no weights."""

AHEAD = 2
"""Images that each reading thread may be ahead of the model."""


class RegionIndexRun:
    """A bank in progress; iterating it remembers the images and yields an `IndexedImage` for each.

    Attributes:
        out: the bank.
        total: images.
        model, device: for people.
        notes: what a user should be told once.
        identity: what the memory of an image depends on.
        before: names of the images that the bank remembered.
        regions: that were remembered by this process.
        facts: of the bank, once it is whole.
    """

    before: frozenset[str] = frozenset()

    def __init__(
        self,
        config: IndexConfig,
        images: FoundImages,
        predictor: Predictor,
        key_encoder: Guide | None,
        identity: dict[str, Any],
    ) -> None:
        self.config, self.predictor, self.key_encoder, self.identity = (
            config,
            predictor,
            key_encoder,
            identity,
        )
        self.sources, self.failures = images.sources, images.failures
        self.out, self.total = config.out, len(self.sources) + len(self.failures)
        self.device = describe_device(predictor.device, predictor.dtype)
        self.model, self.notes, self.regions = "", (*images.notes, *predictor.notes), 0
        self.facts: Facts | None = None

    def __iter__(self) -> Generator[IndexedImage, None, None]:
        """Images in order; the bank is whole when the last one is through. However this ends, what is read is kept.

        What it knows of an image that cannot be read any more stays.

        Raises:
            RunError: there is a bank of other options or images, or no image has a region.
            DiskFullError: nothing more can be written; what is finished stays.
        """
        self.begin()
        sweep_leftovers({self.out / SHARDS})
        for failure in self.failures:
            yield IndexedImage(getattr(failure, "image", "") or failure.message, error=failure)
        known, remembered = known_images(self.out), dict[str, str]()
        writer = ShardWriter(self.out)
        try:
            with closing(self._read_ahead(known)) as images:
                for source, content, prepared in images:
                    error = prepared if isinstance(prepared, ClipsegError) else None
                    if error is None and not isinstance(prepared, ClipsegError) and prepared is not None:
                        error = self._remember(writer, source, content, prepared)
                    if error is None:
                        remembered[source.name] = content
                    elif source.name in known:
                        remembered[source.name] = known[source.name]
                    yield IndexedImage(source.name, fresh=prepared is not None, error=error)
        finally:
            writer.flush()
        if not remembered:
            raise RunError(f"none of {self.total} images could be remembered", hint="see the errors above")
        self.facts = finish(self.out, Facts(REGIONS, self.identity, remembered))
        remove_unused(self.out, remembered)

    def begin(self) -> None:
        """Refuse a bank of something else; see `memory.files.begin`."""
        names = [source.name for source in self.sources]
        self.before |= begin(self.out, Facts(REGIONS, self.identity), names)

    def _remember(
        self, writer: ShardWriter, source: ImageSource, content: str, prepared: Prepared
    ) -> ClipsegError | None:
        try:
            found = read_regions(self.predictor, prepared, self.key_encoder)
        except ClipsegError as error:
            return error
        if not len(found.keys):
            return ImageError(f"{source} has no region", hint="take other --regions", image=str(source))
        writer.add(source.name, content, found.keys.cpu(), found.values.cpu())
        self.regions += len(found.keys)
        return None

    def _read_ahead(
        self, known: dict[str, str]
    ) -> Generator[tuple[ImageSource, str, Prepared | ClipsegError | None], None, None]:
        """Each image, its fingerprint, and the image ready for the model, or None where it is remembered already."""
        waiting: deque[tuple[ImageSource, Future[tuple[str, Prepared | ClipsegError | None]]]] = deque()
        pool = ThreadPoolExecutor(self.config.workers, thread_name_prefix="read")
        try:
            for source in self.sources:
                waiting.append((source, pool.submit(self._read, source, known)))
                if len(waiting) > AHEAD * self.config.workers:
                    one, future = waiting.popleft()
                    yield one, *future.result()
            for one, future in waiting:
                yield one, *future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, source: ImageSource, known: dict[str, str]) -> tuple[str, Prepared | ClipsegError | None]:
        content = ""
        try:
            content = _content(source)
            if known.get(source.name) == content:
                return content, None
            image = read_image(source, max_megapixels=self.config.max_megapixels)
            return content, self.predictor.prepare(image)
        except DiskFullError:
            raise
        except ClipsegError as error:
            return content, error


def prepare_region_index(config: IndexConfig) -> RegionIndexRun:
    """Check every option, find the images, load the networks.

    Raises:
        ClipsegError: anything wrong with options, images, bank or networks.
    """
    check_writable(config.out)
    protocol = find_protocol(config.protocol, config.benchmark)
    if not (config.regions or protocol.regions or config.quality):
        config = dataclasses.replace(config, regions=SOURCE)
    plan = plan_clip(config, protocol, indexing=True)
    if plan.method.pyramid is not None:
        raise UsageError(
            f"--method {config.method_name} looks at whole crops, and regions are made of patches",
            hint="choose another --method, such as maskclip",
        )
    images = images_of(config)
    backbone = plan.backbone()
    networks = plan.auxiliary_networks(backbone)
    asked = ("values",) if networks.key_encoder is None else ()
    classes = ClassList(("thing",), (("thing",),))
    predictor = plan.predictor(backbone, classes, auxiliary=networks, asked=asked)
    run = RegionIndexRun(
        config,
        images,
        predictor,
        networks.key_encoder,
        _identity(plan, predictor, backbone.fingerprint, networks.key_encoder),
    )
    run.model = f"{backbone.name} / {backbone.pretrained}"
    run.begin()
    return run


def _identity(
    plan: ModelPlan, predictor: Predictor, weights: str, key_encoder: Guide | None
) -> dict[str, Any]:
    """What the memory of an image depends on."""
    c, s = plan.config, predictor.settings
    assert predictor.regions is not None  # or else the plan would have been refused
    return {
        "reading": reading_of(c),
        "weights": weights,
        "sizes": {"short_side": s.short_side, "window": s.window, "stride": s.stride},
        "guide": None if key_encoder is None else {"name": c.guide, "fingerprint": key_encoder.fingerprint},
        "regions": {"option": c.regions, **predictor.regions.made_by},
        "hyperparameters": list(c.hyperparameters),
    }


def _content(source: ImageSource) -> str:
    """Fingerprint of the bytes of an image."""
    assert source.path is not None  # folders hold files
    try:
        with open_input(source.path) as file:
            return content_of(file.read())
    except OSError as error:
        raise ImageError(f"cannot read {source}: {error.strerror or error}", image=str(source)) from error
