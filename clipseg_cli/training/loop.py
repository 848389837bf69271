"""`clipseg train`: MaskCLIP+, iteration by iteration, in a resumable run folder (arXiv:2112.01071)."""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clipseg_cli.config import ignore_value
from clipseg_cli.errors import RunError, is_out_of_memory
from clipseg_cli.inference.students import LAST, latest
from clipseg_cli.ops.augment import CropSpec
from clipseg_cli.ops.losses import feature_loss, segmentation_loss
from clipseg_cli.ops.reduce import upsample
from clipseg_cli.runs.manifest import Manifest, write_manifest
from clipseg_cli.training import checkpoints
from clipseg_cli.training.batches import Batch, Batches
from clipseg_cli.training.hyperparameters import out_of_memory
from clipseg_cli.training.log import Step, Throughput, TrainingLog, Validation, read_validation
from clipseg_cli.training.setup import MEAN, STD, share_network
from clipseg_cli.training.targets import FEATURES, Targets, Teacher
from clipseg_cli.utils.device import describe_device
from clipseg_cli.utils.distributed import gather_from_ranks, sum_over_ranks, wait_for_all
from clipseg_cli.utils.threads import crop_threads

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path
    from typing import Any

    from torch import Tensor

    from clipseg_cli.config import TrainConfig
    from clipseg_cli.models.student.files import StudentCard
    from clipseg_cli.models.student.network import Student
    from clipseg_cli.training.hyperparameters import Hyperparameters
    from clipseg_cli.training.samples import TrainingImages
    from clipseg_cli.training.task import TrainingTask
    from clipseg_cli.training.validation import Validator
    from clipseg_cli.utils.distributed import Share

SAVE_SECONDS = 300.0
"""A killed run loses no more than this."""


@dataclass(eq=False)
class TrainingRun:
    """A run in progress; iterating it trains and yields a `Step` for every iteration and a `Validation` now and then.

    Attributes:
        config: the options, with those of the run that is learnt from.
        task: what is learnt.
        hparams: with what settings.
        student: its weights change while one iterates.
        optimiser: over the parameters of the student.
        card: of the student when it began.
        images: of the training, with labels.
        teacher: labels crops; None where nobody does.
        validator: scores the student.
        folder: of the run.
        share: of the work.
        device, dtype, device_name: where and in what precision it computes.
        state: where the run is.
        identity: all that its weights depend on.
        notes: what a user should be told once.
        finished: all iterations are done, maybe before this process began.
        failures: image -> why it could not be learnt from or scored.
        last: the last validation, if there was one.
    """

    config: TrainConfig
    task: TrainingTask
    hparams: Hyperparameters
    student: Student
    optimiser: torch.optim.Optimizer
    card: StudentCard
    images: TrainingImages
    teacher: Teacher | None
    validator: Validator
    folder: Path
    share: Share
    device: torch.device
    dtype: torch.dtype
    state: checkpoints.State
    identity: Mapping[str, Any]
    notes: tuple[str, ...]
    finished: bool

    def __post_init__(self) -> None:
        self.device_name = describe_device(self.device, self.dtype)
        self._kept = self.state.iteration
        self.failures: dict[str, str] = dict(self.state.failures)
        self._ignore = ignore_value(len(self.task.dataset.classes))
        guide = None if self.config.targets == "features" else self.teacher
        self._targets = Targets(self.hparams, self.task.unlabelled, guide, self._ignore)
        self.network = share_network(self.student, self.device, self.share, compiled=self.config.compile)
        self._mean, self._std = (torch.tensor(v, device=self.device).view(3, 1, 1) * 255 for v in (MEAN, STD))
        before = read_validation(self.folder) if self.state.iteration else []
        scored = [row for row in before if row.iteration <= self.state.iteration]
        self.last: Validation | None = scored[-1] if scored else None

    @property
    def checkpoint(self) -> Path:
        """Folder of the last checkpoint."""
        return latest(self.folder, LAST) or self.folder

    def __iter__(self) -> Generator[Step | Validation, None, None]:
        """Train until the iterations are over, and write what belongs to the run.

        Raises:
            RunError: loss or weights are no longer finite, memory ran out, or no image can be read.
            OutputError: a file of the run cannot be written.
        """
        if self.finished:
            return
        with ExitStack() as stack:
            batches = stack.enter_context(self._batches())
            log = None
            if self.share.index == 0:
                log = stack.enter_context(TrainingLog(self.folder, done=self.state.iteration))
            self.student.train()
            throughput = Throughput(self.hparams.batch_size)
            saved, began, before = time.monotonic(), time.monotonic(), self.state.seconds
            while self.state.iteration < self.hparams.iterations:
                step = self._step(next(batches), throughput)
                self.failures |= batches.failures
                self.state = dataclasses.replace(
                    self.state,
                    iteration=step.iteration,
                    padded=self.state.padded + batches.padded,
                    seconds=before + time.monotonic() - began,
                )
                batches.padded = 0
                if log:
                    log.step(step)
                yield step
                validation = self._validate(step.iteration, log)
                if validation is not None:
                    yield validation
                    throughput.restart()
                if self._is_due(step.iteration, validated=validation is not None, since=saved):
                    self._save()
                    saved = time.monotonic()
            self._finish(log)

    def _batches(self) -> Batches:
        n = self.hparams
        red, green, blue = (round(255 * value) for value in MEAN)
        spec = CropSpec(
            crop=n.crop,
            short_side=n.short_side,
            long_side=n.long_side,
            scale=n.scale,
            max_share=n.max_share,
            fill=(red, green, blue),
            ignore=self._ignore,
            mix=n.mix,
            background=self.task.dataset.classes.background,
        )
        return Batches(
            self.images,
            spec,
            batch_size=n.batch_size,
            share=self.share,
            seed=self.config.seed,
            start=self.state.iteration,
            workers=self.config.workers or crop_threads(self.device),
            by_human=self.images.is_human if self.images.has_human else None,
            pinned=self.device.type == "cuda",
        )

    def _step(self, batch: Batch, throughput: Throughput) -> Step:
        """One iteration: forward and backward of all parts, then the optimiser.

        Raises:
            RunError: the loss is not finite; the weights are still those before this iteration.
            RuntimeError: ground truth that nobody may know has got here; nothing was learnt of it.
        """
        iteration, parts = self.state.iteration, self.hparams.grad_accumulation
        lr = self.hparams.lr_at(iteration)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)
        # Label loss, feature loss, share of labelled pixels, leaked pixels: one wait for the device for all of them.
        sums = torch.zeros(4, device=self.device)
        try:
            for number, part in enumerate(batch.split(parts, self.device)):
                with self._synchronised(last=number == parts - 1):
                    sums += self._backward(part, iteration) / parts
            found = (sum_over_ranks(sums, self.share) / self.share.count).tolist()
            if found[3]:
                raise self._targets.leak(batch.given)
            if not math.isfinite(found[0] + found[1]):
                raise self._diverged("the loss is no longer finite")
            self.optimiser.step()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(self.hparams, self.share.count, self.device) from error
        features = self.config.targets == "features"
        return Step(
            iteration=iteration + 1,
            loss=found[0],
            lr=lr,
            stage=FEATURES if features else self._targets.stage(iteration),
            labelled=found[2],
            images_per_second=throughput.tick(),
            distill=found[1] if features else None,
        )

    def _backward(self, part: Batch, iteration: int) -> Tensor:
        """Gradients of one part of a batch; returns its label loss, feature loss, share of labels, and leaks."""
        image = part.images.float().sub_(self._mean).div_(self._std)
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features, logits = self.network(image)
        logits = upsample(logits, (self.hparams.crop, self.hparams.crop))  # once, for labels and loss
        labels = self._targets(part, logits, iteration)
        weights = None
        if part.human is not None:
            weights = torch.where(part.human == 1, self.config.human_weight, 1.0)
        loss = torch.stack([segmentation_loss(logits, one, self._ignore, weights) for one in labels]).mean()
        distance = torch.zeros_like(loss)
        if self.config.targets == "features" and self.teacher is not None:
            distance = feature_loss(features, self.teacher.features(part.images), part.given != self._ignore)
        total = (loss + self.config.distill * distance) / self.hparams.grad_accumulation
        total.backward()
        share = torch.stack([(one != self._ignore).float().mean() for one in labels]).mean()
        return torch.stack([loss.detach(), distance.detach(), share, self._targets.leaked(part.given)])

    def _synchronised(self, *, last: bool) -> Any:
        """Gradients are exchanged once an iteration, with the last part."""
        network: Any = self.network
        return network.no_sync() if self.share.launched and not last else nullcontext()

    def _validate(self, iteration: int, log: TrainingLog | None) -> Validation | None:
        every, final = self.hparams.validate_every, iteration == self.hparams.iterations
        if not (final or (every and iteration % every == 0)):
            return None
        self._check_weights()
        self.validator.card = self._described()
        validation = self.validator(iteration)
        if validation is not None:
            self.last = validation
            self.failures |= self.validator.failures
            if log:
                log.validation(validation)
            best = -1.0 if self.state.best is None else self.state.best
            if validation.miou > best:  # never where there was nothing to score: NaN
                self.state = dataclasses.replace(self.state, best=validation.miou, best_iteration=iteration)
                if self.share.index == 0:
                    checkpoints.save_best(self.folder, self.student, self._described(), iteration)
        if log:
            log.draw()
            log.sample_sheet(iteration, self.validator.sample_rows(), self.task.classes)
        return validation

    def _is_due(self, iteration: int, *, validated: bool, since: float) -> bool:
        if iteration == self.hparams.iterations:
            return False  # the end saves it
        if every := self.hparams.checkpoint_every:
            return iteration % every == 0
        return validated or time.monotonic() - since > SAVE_SECONDS

    def _save(self) -> None:
        self._check_weights()
        if self.share.index == 0:
            state = dataclasses.replace(self.state, failures=self.failures)
            checkpoints.save_last(self.folder, self.student, self._described(), self.optimiser, state)
        self._kept = self.state.iteration

    def _check_weights(self) -> None:
        """Look at the weights before they are used or replace others: the loss would tell only an iteration later.

        Raises:
            RunError: a weight is no longer finite.
        """
        if not all(bool(tensor.isfinite().all()) for tensor in self.student.state_dict().values()):
            raise self._diverged("some weights are no longer finite")

    def _finish(self, log: TrainingLog | None) -> None:
        """The last checkpoint, and the manifest that says that the run is complete."""
        self.failures = dict(gather_from_ranks(list(self.failures.items()), self.share))
        if log:
            result = {
                "iterations": self.state.iteration,
                "miou": self.last and self.last.miou,
                "pixel_accuracy": self.last and self.last.pixel_accuracy,
                "validation_images": self.last and self.last.images,
                "best_miou": self.state.best,
                "best_iteration": self.state.best_iteration,
                "seconds": self.state.seconds,
                "padded_crops": self.state.padded,
                "failures": self.failures,
            }
            if self._kept != self.state.iteration:
                self._save()
            write_manifest(Manifest(self.identity, result), self.folder)
        wait_for_all(self.share)
        self.finished = True

    def _described(self) -> StudentCard:
        """The card with how far the student has come."""
        facts = {**self.card.training, "iteration": self.state.iteration}
        if self.last is not None and math.isfinite(self.last.miou):
            facts |= {"miou": self.last.miou, "miou_iteration": self.last.iteration}
        return dataclasses.replace(self.card, training=facts)

    def _diverged(self, what: str) -> RunError:
        """The error of a loss or of weights that are not finite, as in "the loss is no longer finite"."""
        kept, lr = latest(self.folder, LAST), self.optimiser.param_groups[0]["lr"]
        where = f"the last good checkpoint is kept in {kept}" if kept else "there was no checkpoint yet"
        done = self.state.iteration
        return RunError(
            f"{what} after {done} iteration{'s' if done != 1 else ''}, at a learning rate of {lr:.2g}; {where}",
            hint=f"try a smaller one in a run of another name, as in --lr {self.hparams.lr / 4:.2g}",
        )
