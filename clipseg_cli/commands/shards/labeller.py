"""One worker: the model, loaded once, and a shard at a time through the loop of `clipseg pseudolabel`."""

from __future__ import annotations

import dataclasses
import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from clipseg_cli.commands.pseudolabel import PseudolabelRun
from clipseg_cli.commands.shards.shard import Description, ShardResult, digest
from clipseg_cli.data.addresses import version_behind
from clipseg_cli.data.tars import unpack_images
from clipseg_cli.errors import ClipsegError, DatasetError, is_out_of_memory
from clipseg_cli.inference.dataset import subset_classes
from clipseg_cli.inference.load import plan_model
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.runs.batches import keep_batches
from clipseg_cli.runs.identity import run_identity
from clipseg_cli.runs.provenance import choice_notes, model_notes
from clipseg_cli.runs.records import file_fingerprint
from clipseg_cli.runs.summary import LABELS
from clipseg_cli.types import Sample
from clipseg_cli.utils.device import describe_device
from clipseg_cli.utils.distributed import Share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clipseg_cli.commands.shards.shard import Shard, ShardJob
    from clipseg_cli.runs.records import ImageRecord
    from clipseg_cli.types import DenseModel


class ShardLabeller:
    """Labels shards as one process labels a whole run: the same groups, the same files, byte by byte.

    Args:
        job: what all shards have in common.

    Raises:
        ClipsegError: anything wrong with options or model.
    """

    def __init__(self, job: ShardJob) -> None:
        self.config, self.dataset, self.unseen = job.config, job.dataset, job.unseen
        plan = plan_model(job.config, find_protocol(job.config.protocol, job.dataset.benchmark))
        classes = job.dataset.classes
        words = subset_classes(classes, self.unseen) if self.unseen else classes
        self.backbone: DenseModel
        self.backbone, self.predictor = plan.load(words)
        self.identity = run_identity(
            job.config, job.dataset, self.backbone, self.predictor, plan.templates, self.unseen
        )
        self._made_by = digest(self.identity)

    def describe(self) -> Description:
        """The record of what it labels with."""
        predictor, backbone = self.predictor, self.backbone
        return Description(
            self.identity,
            (
                *predictor.notes,
                *model_notes(backbone, predictor.classes),
                *choice_notes(self.config, predictor.classes),
            ),
            f"{backbone.name} / {backbone.pretrained}",
            describe_device(predictor.device, predictor.dtype),
        )

    def __call__(self, shard: Shard) -> ShardResult:
        """Label a shard; what it wrote comes back as bytes, and nothing stays on the disk."""
        result = ShardResult(
            shard.name, made_by=self._made_by, place=f"process {os.getpid()} on {_HOST}", pid=os.getpid()
        )
        try:
            with TemporaryDirectory(prefix="clipseg-") as folder:
                return self._label(shard, result, Path(folder))
        except ClipsegError as error:
            return dataclasses.replace(result, error=error.message, hint=error.hint)
        except OSError as error:
            return dataclasses.replace(result, error=f"{shard.name}: {error.strerror or error}")
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            hint = "try a smaller --batch-size, in a run of another --name, or fewer --actors"
            return dataclasses.replace(result, error=f"{shard.name}: not enough memory", hint=hint)

    def _label(self, shard: Shard, result: ShardResult, folder: Path) -> ShardResult:
        """Label a shard as a run of its own, in a temporary folder.

        Raises:
            ClipsegError: the tar is damaged or holds no image, or the disk is full.
        """
        samples, known, version = shard.samples, shard.known, result.source
        if shard.tar is not None:
            images = folder / "images"
            images.mkdir()
            # First, so that a change while it is read shows next time.
            version = version_behind(shard.tar.address)
            sources, size = unpack_images(shard.tar, images)
            samples, version = tuple(map(Sample, sources)), version._replace(size=size)
            if not samples:
                raise DatasetError(f"{shard.tar.address}: no images in this tar")
            known = _still_known(known, samples)
        labels = folder / LABELS
        labels.mkdir()
        keep_batches(folder, samples, self.config.batch_size, shard.batches, 0)
        run = PseudolabelRun(
            dataclasses.replace(self.config, shard=(1, 1)),
            dataclasses.replace(self.dataset, samples=samples),
            self.unseen,
            self.backbone,
            self.predictor,
            folder,
            Share(),
            {},
            (),
            elsewhere=known,
        )
        place = {sample.source.name: i for i, sample in enumerate(samples)}
        records = tuple(sorted(run, key=lambda record: place[record.image]))
        again = {record.image for record in records}
        kept = tuple(name for name in known if name not in again)
        files = {
            path.relative_to(labels).as_posix(): path.read_bytes()
            for path in sorted(labels.rglob("*"))
            if path.is_file()
        }
        return dataclasses.replace(result, records=records, kept=kept, files=files, source=version)


def _still_known(known: Mapping[str, ImageRecord], samples: Sequence[Sample]) -> dict[str, ImageRecord]:
    """Records that are about the images that a tar holds now: none where it holds others, or in another order."""
    if list(known) != [sample.source.name for sample in samples]:
        return {}
    return {
        name: record
        for sample, (name, record) in zip(samples, known.items(), strict=True)
        if record.error or (sample.source.path and file_fingerprint(sample.source.path) == record.content)
    }


_HOST = socket.gethostname()
