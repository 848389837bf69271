"""`clipseg pseudolabel`: a label map for every image of a data set, in a resumable run folder."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.commands.convert import KEPT, check_formats_of_a_run, conversion_of_a_run
from clipseg_cli.commands.keep_features import FeatureKeeping, keep_features
from clipseg_cli.config import ignore_value
from clipseg_cli.data.datasets import read_label
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ClipsegError
from clipseg_cli.inference.dataset import open_to_label, subset_classes
from clipseg_cli.inference.kept import check_keeping
from clipseg_cli.inference.load import ModelPlan, plan_model
from clipseg_cli.inference.stream import Stream
from clipseg_cli.outputs import format_names
from clipseg_cli.outputs.confidence import encode_confidence
from clipseg_cli.outputs.labels import encode_labels
from clipseg_cli.runs.batches import planned_groups
from clipseg_cli.runs.folder import (
    SHARE_LOCKS,
    STATE_LOCK,
    begin_images,
    begin_run,
    default_name,
    lock_run,
    run_folder,
)
from clipseg_cli.runs.growth import take_up
from clipseg_cli.runs.human_changes import complete_changes
from clipseg_cli.runs.identity import run_identity
from clipseg_cli.runs.manifest import Manifest, read_manifest
from clipseg_cli.runs.provenance import choice_notes, model_notes
from clipseg_cli.runs.records import ImageRecord, ProgressFile, fingerprint
from clipseg_cli.runs.state import RunState, counted
from clipseg_cli.runs.summary import Summary, confidence_path, finish_run, label_path
from clipseg_cli.utils.device import describe_device
from clipseg_cli.utils.distributed import process_share, rendezvous, wait_for_all
from clipseg_cli.utils.files import write_bytes
from clipseg_cli.utils.locks import file_lock, remove_stale_locks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.commands.convert import Conversion
    from clipseg_cli.config import PseudolabelConfig
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.types import Dataset, DecodedImage, DenseModel, Sample, Segmentation
    from clipseg_cli.utils.distributed import Share


@contextmanager
def open_run(config: PseudolabelConfig) -> Iterator[PseudolabelRun]:
    """Check every option, take the run folder for this process, load the model.

    Raises:
        ClipsegError: anything wrong with options, data set, run folder or model.
    """
    share = process_share(config.shard)
    dataset, protocol, unseen = open_to_label(config)
    plan = plan_model(config, protocol)
    if config.keep_features and isinstance(plan, ModelPlan):
        check_keeping(plan.method, plan.config)
    check_formats_of_a_run(config)
    folder = config.out / (config.name or default_name(config, dataset))
    with ExitStack() as stack:
        notes = list(dataset.notes)
        stack.enter_context(rendezvous(share))
        stack.enter_context(run_folder(folder, dataset))
        left_by = stack.enter_context(lock_run(folder, share))
        if left_by:
            notes.append(f"{left_by} left this run unfinished; going on where it was")
        read_manifest(folder)  # a damaged one is refused before the model is loaded
        with file_lock(folder / STATE_LOCK, wait=True):
            complete_changes(folder, locked=True)  # no import is at work while this run is held
        backbone, predictor = plan.load(
            subset_classes(dataset.classes, unseen) if unseen else dataset.classes
        )
        identity = run_identity(config, dataset, backbone, predictor, plan.templates, unseen)
        growth = take_up(folder, dataset, identity, share, config.batch_size)
        notes += growth.sentences() if growth else ()
        begin_run(folder, Manifest(identity))
        notes += [
            *predictor.notes,
            *model_notes(backbone, predictor.classes),
            *choice_notes(config, predictor.classes),
        ]
        keeping = None
        if config.keep_features:
            expected = {s.source.name for s in dataset.samples} - set(growth.new) if growth else set[str]()
            keeping, said = keep_features(predictor, dataset.samples, folder, identity, expected)
            notes += said
        yield PseudolabelRun(
            config, dataset, unseen, backbone, predictor, folder, share, identity, tuple(notes), keeping
        )


@dataclass(eq=False)
class PseudolabelRun:
    """A run in progress; iterating it does this process's share and yields an `ImageRecord` for every image.

    Attributes:
        config: the options.
        dataset: what is labelled.
        unseen: ids of the classes to fill; none where all is labelled.
        backbone: the model.
        predictor: the loop over it.
        folder: the run folder.
        share: of the work.
        identity: all that its labels depend on.
        notes: what a user should be told once.
        features: that are kept of the images, or None.
        elsewhere: image -> record, of images that were dealt with and whose labels are not in this folder.
        device, model: for people.
        total: images of this process's share.
        before: how many of them an earlier process had finished.
        done, failures: how many this one has dealt with so far, and why some of them have no label.
    """

    config: PseudolabelConfig
    dataset: Dataset
    unseen: tuple[int, ...]
    backbone: DenseModel
    predictor: Predictor
    folder: Path
    share: Share
    identity: dict[str, object]
    notes: tuple[str, ...]
    features: FeatureKeeping | None = None
    elsewhere: Mapping[str, ImageRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config, dataset = self.config, self.dataset
        self.device = describe_device(self.predictor.device, self.predictor.dtype)
        self.model = f"{self.backbone.name} / {self.backbone.pretrained}"
        self.done, self.failures = 0, dict[str, str]()
        self._made_by = self.model if config.student else f"{self.model}, {config.method_name}"
        self._ignore, self._unseen = ignore_value(len(dataset.classes)), np.array(self.unseen, dtype=np.int32)
        self._state, self._contents = RunState(self.folder, dataset), dict[str, str]()
        groups = self.share.of(planned_groups(self.folder, dataset.samples, config.batch_size))
        self._keeps_confidence = KEPT in format_names(config.format_texts)
        finished = self._state.finished(with_confidence=self._keeps_confidence)
        finished |= {name: record for name, record in self.elsewhere.items() if not record.error}
        self._corrected = self._state.corrected
        self.notes += tuple(self._state.sentences())
        # A batch is done again as a whole, so that what it computes does not depend on what was there.
        whole = [[(number, sample) for sample in samples] for number, samples in groups]
        left = [[item for item in group if item[1].source.name not in finished] for group in whole]
        with ThreadPoolExecutor(config.workers, thread_name_prefix="read") as pool:
            failed = list(pool.map(self._fail_again, left))
        self._groups = [group for group, records in zip(whole, failed, strict=True) if records is None]
        self._failed_again = [record for records in failed for record in records or ()]
        self.total = sum(len(samples) for _, samples in groups)
        self.before = self.total - sum(map(len, self._groups)) - len(self._failed_again)

    def __iter__(self) -> Generator[ImageRecord, None, None]:
        """Records of what is not finished yet: images that fail as before, then the others in the order of the list.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the files being written are finished.
            DiskFullError: nothing more can be written; what is finished stays.
        """
        stream = Stream(self.predictor, self.config, self._read, self._write, self._failed)
        known = {**self._state.failed, **self.elsewhere}
        other = [record for record in self._failed_again if record != known[record.image]]
        if not self._groups and not other:
            yield from self._dealt_with(self._failed_again)
            return
        again = {sample.source.name for group in self._groups for _, sample in group} - self._corrected.keys()
        again |= {record.image for record in other}
        begin_images(self.folder, again, None if self.share.count == 1 else self._worker)
        progress = ProgressFile(self.folder, self._worker)
        if other:
            progress.add(other)
        sizes = {group[0][0]: len(group) for group in self._groups}
        waiting: list[ImageRecord] = []
        results = stream.reproducible(self._groups)
        begun = time.monotonic()
        try:
            yield from self._dealt_with(self._failed_again)
            for record in results:
                waiting.append(record)
                if len(waiting) == sizes[record.group]:  # groups come whole and in order
                    progress.add(waiting)
                    yield from self._dealt_with(waiting)
                    waiting.clear()
        finally:
            results.close()
            progress.close()
            if self.features is not None:
                self.features.end(time.monotonic() - begun)

    def finish(self) -> Summary | None:
        """Write what describes the whole run, once all shares of it are done.

        Returns:
            None where that is not this process's to do: shares are missing, or rank 0 does it.

        Raises:
            OutputError: it cannot be written.
        """
        wait_for_all(self.share)
        self._state.require_labels()
        if self.share.launched and self.share.index > 0:
            return None
        with file_lock(self.folder / STATE_LOCK, wait=True):
            records = self._state.records()
            if any(sample.source.name not in records for sample in self.dataset.samples):
                return None
            remove_stale_locks(self.folder.glob(SHARE_LOCKS))
            return finish_run(self.folder, self.dataset, self.identity, records)

    def conversion(self) -> Conversion | None:
        """What writes the formats that were asked for beside the label maps, once the run is complete."""
        return conversion_of_a_run(self.config, self.folder)

    @property
    def _worker(self) -> str:
        return f"{self.share.index + 1}-of-{self.share.count}" if self.share.count > 1 else ""

    def _dealt_with(self, records: Sequence[ImageRecord]) -> Sequence[ImageRecord]:
        self.done += len(records)
        self.failures.update({record.image: record.error for record in records if record.error})
        return records

    def _fail_again(self, items: Sequence[tuple[int, Sample]]) -> list[ImageRecord] | None:
        """Records of images that failed before and do so again; None where one has to be labelled."""
        names = (sample.source.name for _, sample in items)
        if any(name not in self._state.failed and name not in self.elsewhere for name in names):
            return None
        records = []
        for item in items:
            try:
                self.predictor.prepare(self._open(item[1])[0])
            except ClipsegError as error:
                records.append(self._failed(item, error))
            else:
                return None
        return records

    def _open(self, sample: Sample) -> tuple[DecodedImage, NDArray[np.int32] | None]:
        """An image, and its ground truth where that is needed."""
        image = read_image(sample.source, max_megapixels=self.config.max_megapixels)
        return image, self._truth(sample, image.pixels.shape[:2]) if len(self._unseen) else None

    def _read(self, item: tuple[int, Sample]) -> Prepared | ImageRecord:
        content = self._contents[item[1].source.name] = self._state.content(item[1])
        image, truth = self._open(item[1])
        if truth is not None and not np.isin(truth, self._unseen).any():  # its ground truth is its label
            none = np.zeros(truth.shape, dtype=bool)
            labels = np.where(truth < 0, self._ignore, truth)
            return self._save(item, labels, np.zeros(truth.shape, dtype=np.float32), none)
        prepared = self.predictor.prepare(image)
        return prepared if self.features is None else self.features.prepared(prepared, item[1], content)

    def _write(self, item: tuple[int, Sample], result: Segmentation) -> ImageRecord:
        labels: NDArray[np.integer[Any]] = result.labels
        if self.features is not None:
            self.features.labelled(result, item[1], self._contents[item[1].source.name])
        if len(self._unseen):
            labels = self._unseen[labels]
        if self.config.min_confidence > 0:
            labels = np.where(result.scores < self.config.min_confidence, self._ignore, labels)
        if not len(self._unseen):
            return self._save(item, labels, result.scores, None)
        truth = self._truth(item[1], labels.shape)
        model = np.isin(truth, self._unseen)
        labels = np.where(model, labels, np.where(truth < 0, self._ignore, truth))
        return self._save(item, labels, result.scores, model)

    def _failed(self, item: tuple[int, Sample], error: ClipsegError) -> ImageRecord:
        name = item[1].source.name
        sentence = f"{error.message} ({error.hint})" if error.hint else error.message
        if name in self._corrected:
            return dataclasses.replace(self._corrected[name], group=item[0])
        return ImageRecord(name, item[0], error=sentence)

    def _truth(self, sample: Sample, size: tuple[int, ...]) -> NDArray[np.int32]:
        return read_label(sample, self.dataset, (size[0], size[1]))

    def _save(
        self,
        item: tuple[int, Sample],
        labels: NDArray[np.integer[Any]],
        scores: NDArray[np.float32],
        model: NDArray[np.bool_] | None,
    ) -> ImageRecord:
        """Write a label map and count it (see `counted`); one that somebody has corrected stays."""
        group, sample = item
        name, classes = sample.source.name, self.dataset.classes
        if name in self._corrected:
            return dataclasses.replace(self._corrected[name], group=group)
        data = encode_labels(
            labels.astype(np.uint8 if self._ignore < 256 else np.uint16, copy=False),
            classes,
            image=name,
            file=sample.source.file or (sample.source.path.name if sample.source.path else ""),
            made_by=self._made_by,
        )
        if self._keeps_confidence:  # ground truth that is kept is sure
            sure = scores if model is None else np.where(model, scores, np.float32(1))
            write_bytes(confidence_path(self.folder, name), encode_confidence(sure, name))
        write_bytes(label_path(self.folder, sample), data)
        self._state.written.append(name)
        record = ImageRecord(
            name,
            group,
            label=fingerprint(data),
            source=self._state.source_bytes[name],
            content=self._contents[name],
        )
        return counted(record, labels, scores, model, len(classes))
