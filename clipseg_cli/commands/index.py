"""`clipseg index --labels`: a bank of labelled images, one file per image; a second run resumes the first."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clipseg_cli.config import IndexConfig
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ClipsegError, DatasetError, DiskFullError, RunError
from clipseg_cli.inference.banks import reading_of
from clipseg_cli.inference.dataset import open_data
from clipseg_cli.inference.labelled import LabelledSet, in_folder, of_dataset, of_folder
from clipseg_cli.inference.load import load_reader
from clipseg_cli.inference.remember import read_levels
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.memory.files import LABELS as OF_LABELS
from clipseg_cli.memory.files import Facts, begin, content_of, finish, known_content, write_image
from clipseg_cli.ops.levels import Packed, patch_shares
from clipseg_cli.runs.find import options_of_run
from clipseg_cli.runs.human_changes import complete_changes
from clipseg_cli.runs.manifest import FILE, read_manifest
from clipseg_cli.runs.state import RunState
from clipseg_cli.runs.summary import LABELS
from clipseg_cli.utils.device import describe_device
from clipseg_cli.utils.files import check_writable, open_input

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.types import Sample


@dataclass(frozen=True)
class IndexedImage:
    """What became of one image.

    Attributes:
        image: its name.
        fresh: it was read now, and not before.
        error: why it is not remembered; empty if it is.
    """

    image: str
    fresh: bool = False
    error: ClipsegError | None = None


class IndexRun:
    """A bank in progress; iterating it remembers the images and yields an `IndexedImage` for each.

    Attributes:
        out: the bank.
        total: images.
        model, device: for people.
        notes: what a user should be told once.
        before: names of the images that the bank remembered.
        facts: of the bank, once it is whole.
    """

    before: frozenset[str] = frozenset()

    def __init__(self, config: IndexConfig, labelled: LabelledSet, predictor: Predictor, model: str) -> None:
        self.config, self.labelled, self.predictor, self.model = config, labelled, predictor, model
        self.out, self.total = config.out, len(labelled.samples)
        self.device = describe_device(predictor.device, predictor.dtype)
        self.notes: tuple[str, ...] = labelled.dataset.notes
        self.facts: Facts | None = None
        self.dataset, self.classes = labelled.dataset, labelled.dataset.classes

    @property
    def identity(self) -> dict[str, Any]:
        """What the memory of an image depends on."""
        c, s = self.config, self.predictor.settings
        described = self.predictor.describe()
        return {
            "reading": reading_of(c),
            "weights": self.weights,
            "stages": described.get("stages", ""),
            "sizes": {"short_side": s.short_side, "window": s.window, "stride": s.stride},
            "auxiliary": described.get("auxiliary", {}),
            "hyperparameters": list(c.hyperparameters),
            "classes": list(self.classes.names),
        }

    weights = ""

    def __iter__(self) -> Generator[IndexedImage, None, None]:
        """Images in order; the bank is whole when the last one is through.

        What it knows of an image that cannot be read any more stays.

        Raises:
            RunError: there is a bank of other options or images, or no image could be used.
            DiskFullError: nothing more can be written; what is finished stays.
        """
        self.begin()
        remembered: dict[str, str] = {}
        for sample in self.labelled.samples:
            name = sample.source.name
            known = known_content(self.out, name)
            try:
                content = _content(sample)
                fresh = known != content
                if fresh:
                    write_image(self.out, name, content, self._tensors(sample))
            except DiskFullError:
                raise
            except ClipsegError as error:
                if known:
                    remembered[name] = known
                yield IndexedImage(name, error=error)
                continue
            remembered[name] = content
            yield IndexedImage(name, fresh)
        if not remembered:
            raise RunError(f"none of {self.total} images could be remembered", hint="see the errors above")
        self.facts = finish(self.out, Facts(OF_LABELS, self.identity, remembered))

    def begin(self) -> None:
        """Refuse a bank of something else; see `memory.files.begin`."""
        names = [sample.source.name for sample in self.labelled.samples]
        self.before |= begin(self.out, Facts(OF_LABELS, self.identity), names)

    def _tensors(self, sample: Sample) -> Mapping[str, torch.Tensor]:
        image = read_image(sample.source, max_megapixels=self.config.max_megapixels)
        truth = self.labelled.truth(sample, (image.pixels.shape[0], image.pixels.shape[1]))
        seen = self.predictor.prepare(image)
        mirrored = dataclasses.replace(seen, resized=np.ascontiguousarray(seen.resized[:, ::-1]))
        levels = torch.stack([read_levels(self.predictor, one).cpu() for one in (seen, mirrored)])
        grid = (levels.shape[2], levels.shape[3])
        shares = patch_shares(torch.from_numpy(truth), len(self.classes), grid)
        packed = Packed.of(levels)
        return {
            "levels": packed.values,
            "scale": packed.scale,
            "shares": (torch.stack([shares, shares.flip(2)]) * 255).round().to(torch.uint8),
        }


def prepare_index(config: IndexConfig, given: Mapping[str, Any]) -> IndexRun:
    """Check every option, find the labels, load the model.

    Args:
        config: all options.
        given: those that the user wrote; beside a run of pseudo labels all others are those of the run.

    Raises:
        ClipsegError: anything wrong with options, labels, bank or model.
    """
    check_writable(config.out)
    config, labelled = find_labels(config, given)
    protocol = find_protocol(config.protocol, labelled.dataset.benchmark)
    predictor, backbone = load_reader(config, protocol, labelled.dataset.classes)
    run = IndexRun(config, labelled, predictor, f"{backbone.name} / {backbone.pretrained}")
    run.weights = backbone.fingerprint
    run.begin()
    return run


def find_labels(config: IndexConfig, given: Mapping[str, Any]) -> tuple[IndexConfig, LabelledSet]:
    """The labelled images that the options mean, and the options with what a run adds to them.

    Raises:
        ClipsegError: there are none.
    """
    folder = Path(config.labels)
    if (folder / FILE).is_file():
        return _of_run(config, folder, given)
    if config.dataset:
        return config, of_folder(config)
    return config, of_dataset(config)


def _of_run(config: IndexConfig, folder: Path, given: Mapping[str, Any]) -> tuple[IndexConfig, LabelledSet]:
    """The labels of a run that somebody has corrected since it wrote them."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.identity.get("kind") != "pseudolabel":
        raise RunError(f"{folder} is no run of clipseg pseudolabel", hint="name one, or a data set")
    fields = {field.name for field in dataclasses.fields(IndexConfig)} - {
        "out",
        "labels",
        "short_side",
        "memory",
    }
    options = {key: value for key, value in options_of_run(manifest).items() if key in fields}
    if options.get("hyperparameters"):
        options["hyperparameters"] = tuple(options["hyperparameters"])
    options["split"] = manifest.identity["dataset"]["split"] or None
    config = dataclasses.replace(config, **{k: v for k, v in options.items() if k not in given})
    dataset, _ = open_data(config, "label")
    complete_changes(folder)
    state = RunState(folder, dataset)
    state.records()
    held = {name for name, record in state.human.items() if record.hold_out}
    # A damaged label may have been a corrected one: reading it fails, and it is named.
    taught = (state.corrected.keys() | state.damaged) - held
    corrected = [s for s in dataset.samples if s.source.name in taught]
    if not corrected:
        raise RunError(
            f"no label of {folder} was corrected since it was written",
            hint="correct some in any tool, and take them back with clipseg import RUN FILES",
        )
    return config, in_folder(
        dataclasses.replace(dataset, samples=tuple(corrected)), folder / LABELS, str(folder)
    )


def _content(sample: Sample) -> str:
    """Fingerprint of an image and its label."""
    parts = []
    for path in (sample.source.path, sample.label):
        if path is None:
            continue
        try:
            with open_input(path) as file:
                parts.append(file.read())
        except OSError as error:
            raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    return content_of(*parts)
