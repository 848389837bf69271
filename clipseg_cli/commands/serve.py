"""`clipseg serve`: one model in one thread, which labels the images of requests."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
import threading
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from clipseg_cli.commands.label_config import LabelConfig, read_label_config
from clipseg_cli.commands.segment import plan_segmentation
from clipseg_cli.config import LOOPBACK, ServeConfig
from clipseg_cli.data.images import decode_image, read_image
from clipseg_cli.errors import ClipsegError, ImageError, UsageError
from clipseg_cli.ops.components import absorb_small
from clipseg_cli.outputs.label_studio import model_version, prediction
from clipseg_cli.outputs.labels import encode_labels
from clipseg_cli.runs.provenance import notes, run_info
from clipseg_cli.types import ImageSource, MemorySource
from clipseg_cli.utils.device import describe_device

if TYPE_CHECKING:
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.types import ClassList, DecodedImage, RunInfo, Segmentation

_DATA = "/data/"
_LOCAL_FILES = "/data/local-files/"


def prepare_service(config: ServeConfig) -> Service:
    """Check every option, then load the model.

    Raises:
        ClipsegError: anything wrong with options, folder of images or model.
    """
    if config.host not in LOOPBACK and not config.token:
        raise UsageError(
            f"--host {config.host} lets other machines in", hint="say with --token TEXT what they must bring"
        )
    root = Path(config.images) if config.images else None
    if root is not None and not root.is_dir():
        raise UsageError(f"--images {root} is no folder")
    plan, classes = plan_segmentation(config)
    backbone, predictor = plan.load(classes)
    return Service(
        config,
        predictor,
        run_info(config, backbone, predictor),
        root.resolve() if root else None,
        f"{backbone.name} / {backbone.pretrained}",
        describe_device(predictor.device, predictor.dtype),
        tuple(notes(config, backbone, predictor.classes)),
    )


@dataclass(eq=False)
class Service:
    """What requests are answered with; safe to be called from several threads, one image at a time.

    Attributes:
        config: the options.
        predictor: the model.
        run: with what labels are made.
        root: folder below which images of tasks lie; None takes only images that a request brings itself.
        model, device: for people.
        notes: what a user should be told once.
    """

    config: ServeConfig
    predictor: Predictor
    run: RunInfo
    root: Path | None
    model: str
    device: str
    notes: tuple[str, ...]
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def classes(self) -> ClassList:
        """What labels mean."""
        return self.predictor.classes

    @property
    def version(self) -> str:
        """What Label Studio shows beside a prediction."""
        return model_version(self.run)

    def label(self, image: DecodedImage) -> Segmentation:
        """Label one image.

        Raises:
            ClipsegError: it cannot be labelled.
        """
        prepared = self.predictor.prepare(image)
        with self._lock:
            result = next(self.predictor.predict([prepared]))
        if self.config.min_area:
            result = dataclasses.replace(result, labels=absorb_small(result.labels, self.config.min_area))
        return result

    def png(self, data: bytes) -> bytes:
        """The label PNG of the bytes of an image.

        Raises:
            ClipsegError: they are no image, or one that is too large.
        """
        return encode_labels(self.label(self._decoded(data)).labels, self.classes)

    def predict(self, task: Any, label_config: str | None) -> dict[str, Any]:
        """A prediction for one task of Label Studio.

        Args:
            task: with `data`, in which the labelling configuration names the image.
            label_config: XML; None takes the names of `label_studio.xml`, as `--formats label-studio` writes it.

        Raises:
            ClipsegError: no such image, or a configuration without brushes.
        """
        config = read_label_config(label_config) if label_config else LabelConfig.own(self.classes)
        data = task.get("data") if isinstance(task, dict) else None
        address = data.get(config.key) if isinstance(data, dict) else None
        if not isinstance(address, str):
            raise ImageError(f"the task has no data '{config.key}' that says where its image is")
        result = self.label(self._image(address))
        begins = str(task.get("id", ""))[:40] or "task"
        tags = (config.brush, config.image)
        names = config.names_of(self.classes)
        return {"model_version": self.version, **prediction(result, names, begins, tags=tags)}

    def _decoded(self, data: bytes) -> DecodedImage:
        source = MemorySource(None, PurePosixPath("request"))
        return decode_image(io.BytesIO(data), source, self.config.max_megapixels)

    def _image(self, address: str) -> DecodedImage:
        if address.startswith("data:"):
            _, _, text = address.partition(",")
            try:
                return self._decoded(base64.b64decode(text, validate=True))
            except (binascii.Error, ValueError) as error:
                raise ImageError("the image in the task is no base64") from error
        if self.root is None:
            raise ImageError(
                f"{address[:200]}: no folder of images is known", hint="start clipseg serve with --images DIR"
            )
        path = self._below(address)
        return read_image(
            ImageSource(path, PurePosixPath(path.stem)), max_megapixels=self.config.max_megapixels
        )

    def _below(self, address: str) -> Path:
        """The file in the folder of images that an address means; nothing is fetched from anywhere."""
        assert self.root is not None
        parts = urlsplit(address)
        inside = unquote(parts.path)
        if inside.startswith(_LOCAL_FILES.rstrip("/")):
            inside = parse_qs(parts.query).get("d", [""])[0]
        inside = inside.removeprefix(_DATA).lstrip("/")
        if "\0" in inside or not inside:
            raise ImageError(f"{address[:200]!r} names no file")
        first, _, rest = inside.partition(
            "/"
        )  # the folder itself may be named, as it is below the document root
        for name in (inside, rest if first == self.root.name else ""):
            path = (self.root / name).resolve()
            if path.is_relative_to(self.root) and path.is_file():
                return path
        raise ImageError(f"{inside[:200]}: no such image below {self.root}")


def sentence(error: ClipsegError) -> str:
    """An error in one line."""
    return f"{error.message}; {error.hint}" if error.hint else error.message
