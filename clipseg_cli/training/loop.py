"""`clipseg train`: MaskCLIP+, iteration by iteration, in a resumable run folder (arXiv:2112.01071)."""

from __future__ import annotations

import dataclasses
import math
import time
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING

import torch

from clipseg_cli.config import ignore_value
from clipseg_cli.errors import is_out_of_memory
from clipseg_cli.inference.students import LAST, latest
from clipseg_cli.ops.augment import CropSpec
from clipseg_cli.ops.losses import feature_loss, segmentation_loss
from clipseg_cli.ops.reduce import upsample
from clipseg_cli.runs.manifest import Manifest, write_manifest
from clipseg_cli.training import checkpoints
from clipseg_cli.training.batches import Batch, Batches
from clipseg_cli.training.clock import Clock
from clipseg_cli.training.log import Journal, Outcome, Step, Validation, read_validation
from clipseg_cli.training.setup import MEAN, STD, share_network
from clipseg_cli.training.targets import FEATURES, Targets, Teacher
from clipseg_cli.training.trouble import diverged, out_of_memory
from clipseg_cli.utils.device import describe_device
from clipseg_cli.utils.distributed import gather_from_ranks, sum_over_ranks, wait_for_all

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path
    from typing import Any

    from torch import Tensor
    from torch.nn.parallel import DistributedDataParallel

    from clipseg_cli.config import TrainConfig
    from clipseg_cli.errors import RunError
    from clipseg_cli.models.student.files import StudentCard
    from clipseg_cli.models.student.network import Student
    from clipseg_cli.training.hyperparameters import Numbers
    from clipseg_cli.training.samples import Pictures
    from clipseg_cli.training.showing import Sheet
    from clipseg_cli.training.task import Lesson
    from clipseg_cli.training.validation import Validator
    from clipseg_cli.utils.distributed import Share

SAVE_SECONDS = 300.0
"""A killed run loses no more than this."""


class TrainingRun:
    """A run in progress; iterating it trains and yields a `Step` for every iteration and a `Validation` now and then.

    Attributes:
        lesson: what is learnt.
        numbers: with what settings.
        student: its weights change while one iterates.
        folder: of the run.
        device, dtype, device_name: where and in what precision it computes.
        notes: what a user should be told once.
        failures: picture -> why it could not be learnt from or scored.
        state: where the run is.
        outcome: once it is finished; a run that was finished before has one at once, and yields nothing.
    """

    def __init__(
        self,
        config: TrainConfig,
        lesson: Lesson,
        numbers: Numbers,
        student: Student,
        optimiser: torch.optim.Optimizer,
        card: StudentCard,
        *,
        pictures: Pictures,
        teacher: Teacher | None,
        validator: Validator | None,
        sheet: Sheet,
        folder: Path,
        share: Share,
        device: torch.device,
        dtype: torch.dtype,
        state: checkpoints.State,
        identity: Mapping[str, Any],
        notes: tuple[str, ...],
        finished: bool,
    ) -> None:
        self.config, self.lesson, self.numbers, self.student = config, lesson, numbers, student
        self.folder, self.share, self.device, self.dtype, self.notes = folder, share, device, dtype, notes
        self.device_name = describe_device(device, dtype)
        self.state, self._kept = state, state.iteration
        self.failures: dict[str, str] = dict(state.failures)
        self._optimiser, self._card, self._identity = optimiser, card, identity
        self._pictures, self._validator, self._sheet = pictures, validator, sheet
        self._teacher = teacher
        self._ignore = ignore_value(len(lesson.dataset.classes))
        guide = None if config.targets == "features" else teacher
        self._targets = Targets(numbers, lesson.unlabelled, guide, self._ignore)
        self.network = share_network(student, device, share, compiled=config.compile)
        self._mean = torch.tensor(MEAN, device=device).view(3, 1, 1) * 255
        self._std = torch.tensor(STD, device=device).view(3, 1, 1) * 255
        before = read_validation(folder) if state.iteration else []
        scored = [row for row in before if row.iteration <= state.iteration]
        self._last: Validation | None = scored[-1] if scored else None
        self.outcome: Outcome | None = self._reached() if finished else None

    def __iter__(self) -> Generator[Step | Validation, None, None]:
        """Train until the iterations are over, and write what belongs to the run.

        Raises:
            RunError: loss or weights are no numbers any more, memory ran out, or no picture can be read.
            OutputError: a file of the run cannot be written.
        """
        if self.outcome is not None:
            return
        with ExitStack() as stack:
            batches = stack.enter_context(self._batches())
            journal = None
            if self.share.index == 0:
                journal = stack.enter_context(Journal(self.folder, done=self.state.iteration))
            self.student.train()
            clock = Clock(self.numbers.batch_size)
            saved, began, before = time.monotonic(), time.monotonic(), self.state.seconds
            while self.state.iteration < self.numbers.iterations:
                step = clock.timed(self._step(next(batches)))
                self.failures |= batches.failures
                self.state = dataclasses.replace(
                    self.state,
                    iteration=step.iteration,
                    padded=self.state.padded + batches.padded,
                    seconds=before + time.monotonic() - began,
                )
                batches.padded = 0
                if journal:
                    journal.step(step)
                yield step
                validation = self._validate(step.iteration, journal)
                if validation is not None:
                    yield validation
                    clock.restart()
                if self._is_due(step.iteration, validated=validation is not None, since=saved):
                    self._save()
                    saved = time.monotonic()
            self._finish(journal)

    def _batches(self) -> Batches:
        n = self.numbers
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
            background=self.lesson.dataset.classes.background,
        )
        return Batches(
            self._pictures,
            spec,
            batch_size=n.batch_size,
            share=self.share,
            seed=self.config.seed,
            start=self.state.iteration,
            workers=self.config.workers,
        )

    def _step(self, batch: Batch) -> Step:
        """One iteration: forward and backward of all parts, then the optimiser.

        Raises:
            RunError: the loss is no number; the weights are still those before this iteration.
        """
        iteration, parts = self.state.iteration, self.numbers.accumulate
        rate = self.numbers.rate_at(iteration)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        sums = torch.zeros(3, device=self.device)  # label loss, feature loss, share of pixels with a label
        try:
            for number, part in enumerate(_split(batch, parts, self.device)):
                with self._synchronised(last=number == parts - 1):
                    sums += self._backward(part, iteration) / parts
            found = (sum_over_ranks(sums, self.share) / self.share.count).tolist()
            if not math.isfinite(found[0] + found[1]):
                raise self._diverged("the loss is no number", iteration)
            self._optimiser.step()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(self.numbers, self.share.count, self.device) from error
        features = self.config.targets == "features"
        return Step(
            iteration=iteration + 1,
            loss=found[0],
            rate=rate,
            stage=FEATURES if features else self._targets.stage(iteration),
            labelled=found[2],
            images_per_second=0.0,
            distill=found[1] if features else None,
        )

    def _backward(self, part: Batch, iteration: int) -> Tensor:
        """Gradients of one part of a batch; returns its label loss, feature loss and share of labelled pixels."""
        image = ((part.images.float() - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features, logits = self.network(image)
        logits = upsample(logits, (self.numbers.crop, self.numbers.crop))  # once, for labels and loss
        labels = self._targets(part, logits, iteration)
        loss = torch.stack([segmentation_loss(logits, one, self._ignore) for one in labels]).mean()
        distance = torch.zeros_like(loss)
        if self.config.targets == "features" and self._teacher is not None:
            distance = feature_loss(features, self._teacher.features(part.images), part.given != self._ignore)
        total = (loss + self.config.distill * distance) / self.numbers.accumulate
        total.backward()
        share = (torch.stack(labels) != self._ignore).float().mean()
        return torch.stack([loss.detach(), distance.detach(), share])

    def _synchronised(self, *, last: bool) -> Any:
        """Gradients are exchanged once an iteration, with the last part."""
        if self.share.launched and not last:
            network: DistributedDataParallel = self.network  # type: ignore[assignment]
            return network.no_sync()
        return nullcontext()

    def _validate(self, iteration: int, journal: Journal | None) -> Validation | None:
        every, final = self.numbers.validate_every, iteration == self.numbers.iterations
        if not (final or (every and iteration % every == 0)):
            return None
        self._check_weights()
        validation = None
        if self._validator is not None:
            self._validator.card = self._described()
            validation = self._last = self._validator(iteration)
            self.failures |= self._validator.failures
            if journal:
                journal.validation(validation)
            best = -1.0 if self.state.best is None else self.state.best
            if validation.miou > best:  # never where there was nothing to score: NaN
                self.state = dataclasses.replace(self.state, best=validation.miou, best_iteration=iteration)
                if self.share.index == 0:
                    checkpoints.save_best(self.folder, self.student, self._described(), iteration)
        if journal:
            journal.draw()
            journal.pictures(iteration, self._sheet.rows(self.student), self.lesson.classes)
        return validation

    def _is_due(self, iteration: int, *, validated: bool, since: float) -> bool:
        if iteration == self.numbers.iterations:
            return False  # the end saves it
        every = self.numbers.checkpoint_every
        if every:
            return iteration % every == 0
        return validated or time.monotonic() - since > SAVE_SECONDS

    def _save(self) -> None:
        self._check_weights()
        if self.share.index == 0:
            state = dataclasses.replace(self.state, failures=self.failures)
            checkpoints.save_last(self.folder, self.student, self._described(), self._optimiser, state)
        self._kept = self.state.iteration

    def _check_weights(self) -> None:
        """Before they are used or replace others: the loss notices only an iteration later.

        Raises:
            RunError: a weight is no number any more.
        """
        if not all(bool(tensor.isfinite().all()) for tensor in self.student.state_dict().values()):
            raise self._diverged("some weights are no numbers", self.state.iteration)

    def _finish(self, journal: Journal | None) -> None:
        """The last checkpoint, and the manifest that says that the run is complete."""
        self.failures = dict(gather_from_ranks(list(self.failures.items()), self.share))
        if journal:
            result = {
                "iterations": self.state.iteration,
                "miou": self._last and self._last.miou,
                "pixel_accuracy": self._last and self._last.pixel_accuracy,
                "validation_images": self._last and self._last.images,
                "best_miou": self.state.best,
                "best_iteration": self.state.best_iteration,
                "seconds": self.state.seconds,
                "padded_crops": self.state.padded,
                "failures": self.failures,
            }
            if self._kept != self.state.iteration:
                self._save()
            write_manifest(Manifest(self._identity, result), self.folder)
        wait_for_all(self.share)
        self.outcome = self._reached()

    def _reached(self) -> Outcome:
        checkpoint = latest(self.folder, LAST) or self.folder
        return Outcome(self._last, self.state.best, self.state.best_iteration, checkpoint)

    def _described(self) -> StudentCard:
        """The card with how far the student has come."""
        facts = {**self._card.training, "iteration": self.state.iteration}
        if self._last is not None and math.isfinite(self._last.miou):
            facts["miou"] = self._last.miou
            facts["miou_iteration"] = self._last.iteration
        return dataclasses.replace(self._card, training=facts)

    def _diverged(self, what: str, iteration: int) -> RunError:
        rate = self._optimiser.param_groups[0]["lr"]
        return diverged(what, self.folder, self.numbers, iteration=iteration, rate=rate)


def _split(batch: Batch, parts: int, device: torch.device) -> list[Batch]:
    """Equal parts of a batch, on the device."""
    size = len(batch.images) // parts

    def part(tensor: Tensor | None, i: int) -> Any:
        return None if tensor is None else tensor[i * size : (i + 1) * size].to(device, non_blocking=True)

    return [Batch(*(part(tensor, i) for tensor in batch)) for i in range(parts)]
