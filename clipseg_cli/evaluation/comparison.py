"""Several ways to read CLIP, and several CLIPs, on the same images, decoded once: scores and times."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from clipseg_cli.data.datasets import read_label
from clipseg_cli.data.images import read_image, resize_image, resize_labels
from clipseg_cli.data.published import best_row
from clipseg_cli.errors import ClipsegError
from clipseg_cli.evaluation.protocol_sheet import protocol_settings
from clipseg_cli.evaluation.scoring import size_to_score
from clipseg_cli.inference.dataset import cut_into_groups, list_hash
from clipseg_cli.methods import find_method
from clipseg_cli.ops.metrics import confusion_matrix, score
from clipseg_cli.outputs import LabelRow, json_safe, write_label_sheet
from clipseg_cli.runs.provenance import describe_model, versions
from clipseg_cli.utils.device import describe_device
from clipseg_cli.utils.files import write_bytes, write_json
from clipseg_cli.utils.threads import map_single_threaded, pool_size

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.config import EvalConfig, Protocol
    from clipseg_cli.data.published import Published
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.models.clip.backbones import Backbone
    from clipseg_cli.types import Dataset, DecodedImage, Sample

PLAIN = "vanilla"
"""The method whose time is 1."""

SHOWN = 4
"""Images on the sheet."""

SHEET = "methods.png"

CHUNK_BYTES = 512 << 20
"""Decoded images and ground truth that wait for the models at once; at least one group does, however large."""


@dataclass
class Candidate:
    """One method on one model, and what it has done so far.

    Attributes:
        config: with the method.
        seconds: that its images took, from pixels to labels.
        matrix: [C, C + 1] pixels.
        shown: its labels of the first images, for the sheet.
    """

    config: EvalConfig
    backbone: Backbone
    predictor: Predictor
    templates: Sequence[str]
    seconds: float = 0.0
    images: int = 0
    shown: list[NDArray[np.integer]] = field(default_factory=list)

    def __post_init__(self) -> None:
        classes = len(self.predictor.classes)
        self.name, self.model = self.config.method, f"{self.backbone.name} / {self.backbone.pretrained}"
        self.matrix = torch.zeros(classes, classes + 1, dtype=torch.int64)


@dataclass(frozen=True)
class Row:
    """What a candidate reached.

    Attributes:
        miou, pixel_accuracy, hiou: in [0, 1]; None where undefined.
        images_per_second: images, their reading and the scoring left out.
        cost: time relative to plain CLIP on the same model; None if that did not take part.
        published: of the same method on the same benchmark; None without.
    """

    method: str
    model: str
    paper: str
    miou: float
    pixel_accuracy: float
    hiou: float | None
    images_per_second: float
    cost: float | None
    published: Published | None


class ScoredImage(NamedTuple):
    """One image, read once for all: with its ground truth [H, W], at the size (H, W) that is scored."""

    image: DecodedImage
    truth: NDArray[np.int32]
    size: tuple[int, int]


class Comparison:
    """A prepared comparison; iterating it labels and scores, and yields the number of images done.

    Attributes:
        notes: what a user should be told once, such as who cannot take part.
        failures: image -> why it could not be scored.
        total: images.
    """

    def __init__(
        self,
        config: EvalConfig,
        dataset: Dataset,
        protocol: Protocol,
        candidates: Sequence[Candidate],
        *,
        notes: Sequence[str],
        unseen: tuple[int, ...],
        out: Path,
    ) -> None:
        self.config, self.dataset, self.protocol = config, dataset, protocol
        self.candidates, self.unseen, self.out = list(candidates), unseen, out
        self.notes, self.failures = (*dataset.notes, *notes), dict[str, str]()
        self.total = len(dataset.samples)
        self._shown: list[ScoredImage] = []
        self.device = describe_device(candidates[0].predictor.device, candidates[0].predictor.dtype)

    def __iter__(self) -> Generator[int, None, None]:
        """Some groups at a time: read once, then each candidate in turn; the next ones are read meanwhile."""
        device = self.candidates[0].predictor.device
        groups = [samples for _, samples in cut_into_groups(self.dataset.samples, self.config.batch_size)]
        threads, waiting, done, held = pool_size(device), iter(groups), 0, 0
        with ThreadPoolExecutor(self.config.workers, thread_name_prefix="read") as pool:

            def begin() -> list[list[Future[ScoredImage | None]]]:
                # One group first, which tells how much memory they take; then as many as there are threads, or as fit.
                room = max(1, min(threads, CHUNK_BYTES // held)) if held else 1
                chunk = list(islice(waiting, room))
                return [[pool.submit(self._read, sample) for sample in samples] for samples in chunk]

            ahead = begin()
            while ahead:
                read = [[future.result() for future in group] for group in ahead]
                sizes = [
                    p.image.pixels.nbytes + p.truth.nbytes for group in read for p in group if p is not None
                ]
                held = max(held, sum(sizes) // len(read))
                ahead = begin()
                images = [[one for one in group if one is not None] for group in read]
                self._shown += [one for group in images for one in group][: SHOWN - len(self._shown)]
                for candidate in self.candidates:
                    self._compete(candidate, images)
                done += sum(map(len, read))
                yield done

    def _read(self, sample: Sample) -> ScoredImage | None:
        try:
            image = read_image(sample.source, max_megapixels=self.config.max_megapixels)
            height, width = image.pixels.shape[:2]
            size = size_to_score(height, width, self.protocol)
            truth = resize_labels(read_label(sample, self.dataset, (height, width)), size)
            return ScoredImage(image, truth, size)
        except ClipsegError as error:
            self.failures[sample.source.name] = error.message
            return None

    def _compete(self, one: Candidate, groups: Sequence[Sequence[ScoredImage]]) -> None:
        """The labels of `clipseg eval` for some groups, on single threads too, timed and counted."""
        predictor = one.predictor

        def label(images: Sequence[ScoredImage]) -> list[NDArray[np.uint8] | NDArray[np.uint16]]:
            prepared = [predictor.prepare(one.image, one.size) for one in images]
            return [result.labels for result in predictor.predict(prepared)]

        began = time.perf_counter()
        labels = map_single_threaded(label, groups, predictor.device)
        if predictor.device.type == "cuda":
            torch.cuda.synchronize(predictor.device)
        one.seconds += time.perf_counter() - began
        for maps, images in zip(labels, groups, strict=True):
            one.images += len(images)
            one.shown += maps[: SHOWN - len(one.shown)]
            for ids, scored in zip(maps, images, strict=True):
                one.matrix += confusion_matrix(
                    torch.from_numpy(ids), torch.from_numpy(scored.truth), len(self.dataset.classes)
                )

    def rows(self) -> list[Row]:
        """One for each candidate, the best first."""
        plain = {one.model: one.seconds for one in self.candidates if one.name == PLAIN}
        found = []
        for one in self.candidates:
            scores = score(one.matrix, self.unseen)
            cost = one.seconds / plain[one.model] if plain.get(one.model) else None
            found.append(
                Row(
                    one.name,
                    one.model,
                    find_method(one.name).paper,
                    scores.miou,
                    scores.pixel_accuracy,
                    scores.hiou,
                    one.images / max(one.seconds, 1e-9),
                    cost,
                    best_row(one.name, self.dataset.benchmark or "", one.backbone.name),
                )
            )
        return sorted(found, key=lambda row: -row.miou)

    def write(self) -> list[Path]:
        """`methods.csv`, `methods.json` and the sheet `methods.png` in the folder of the run.

        Raises:
            OutputError: one cannot be written.
        """
        rows: list[dict[str, Any]] = [dataclasses.asdict(row) for row in self.rows()]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            published = row["published"]
            writer.writerow({**row, "published": published and published["value"]})
        one = self.candidates[0]
        record = {
            "rows": rows,
            "dataset": self.dataset.title,
            "root": self.dataset.root.resolve(),
            "benchmark": self.dataset.benchmark,
            "split": self.dataset.split,
            "images": self.total - len(self.failures),
            "images_sha256": list_hash(self.dataset.samples),
            "failed": self.failures,
            "models": {c.model: describe_model(c.backbone, c.predictor) for c in self.candidates},
            "settings": {f"{c.name}, {c.model}": c.predictor.describe() for c in self.candidates},
            "protocol": {
                "name": self.protocol.name,
                **{
                    name: value
                    for name, value, _ in protocol_settings(
                        self.protocol, one.config, self.dataset.classes, one.templates
                    )
                },
            },
            "versions": versions(),
        }
        return [
            write_bytes(self.out / "methods.csv", text.getvalue().encode()),
            write_json(self.out / "methods.json", json_safe(record)),
            *self._draw(),
        ]

    def _draw(self) -> list[Path]:
        """The first images beside their ground truth and what each candidate says, the best first."""
        order = {(row.method, row.model): (i, row.miou) for i, row in enumerate(self.rows())}
        ranked = sorted(self.candidates, key=lambda one: order[one.name, one.model][0])
        several = len({one.model for one in ranked}) > 1
        columns = ["ground truth"]
        for one in ranked:
            name = f"{one.backbone.name} {one.name}" if several else one.name
            columns.append(f"{name} {100 * order[one.name, one.model][1]:.1f}")
        rows = []
        for i, scored in enumerate(self._shown):
            height, width = scored.size
            image = resize_image(scored.image.pixels, (height, width), antialias=True)
            maps = [np.where(scored.truth < 0, len(self.dataset.classes), scored.truth)]
            maps += [one.shown[i] for one in ranked]
            rows.append(LabelRow(scored.image.source.name, image, maps))
        return [write_label_sheet(rows, columns, self.dataset.classes, self.out / SHEET)] if rows else []
