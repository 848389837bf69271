"""Who labels the pixels that nobody labelled: the frozen teacher first, then the student itself; or both.

MaskCLIP+ (arXiv:2112.01071, section 3.3). Reference: chongzhou96/MaskCLIP@245d31f,
mmseg/models/decode_heads/maskclip_plus_head.py, forward_train and assign_label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from clipseg_cli.config import UNLABELLED
from clipseg_cli.ops.pseudo import count_leaked, fill_unlabelled, leak_table, leaked_classes
from clipseg_cli.ops.similarity import class_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.training.batches import Batch
    from clipseg_cli.training.hyperparameters import Hyperparameters

GUIDED, SELF, TRUTH, FEATURES = "guided", "self-training", "ground truth", "features"
BOTH = f"{GUIDED} + {SELF}"


class Teacher:
    """A frozen CLIP that labels the very crop that the student sees.

    Args:
        predictor: for the classes that it may give, and only these compete.
        class_ids: ids of these classes in the student's list.
    """

    def __init__(self, predictor: Predictor, class_ids: Sequence[int]) -> None:
        self.predictor = predictor
        self._ids = torch.tensor(class_ids, dtype=torch.int32, device=predictor.device)

    @torch.no_grad()
    def fill(self, images: Tensor, labels: Tensor) -> Tensor:
        """Labels with every unlabelled pixel filled, all others as they were.

        Args:
            images: uint8 RGB [B, 3, H, W].
            labels: int32 [B, H, W].
        """
        free = labels == UNLABELLED
        wanted = free.flatten(1).any(dim=1).nonzero()[:, 0]
        if not len(wanted):
            return labels.clone()
        every = len(wanted) == len(labels)
        seen = images if every else images[wanted]
        found = self._ids[self.predictor.labels(seen, (labels.shape[1], labels.shape[2])).long()]
        full = found if every else labels.index_copy(0, wanted, found)
        return torch.where(free, full, labels)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Dense features [B, D, h, w] of whole crops, uint8 RGB [B, 3, H, W]."""
        p = self.predictor
        with torch.autocast(p.device.type, p.dtype, enabled=p.dtype != torch.float32):
            return p.reader(p.normalise(images)).features.float()


class Targets:
    """What the student is to say, at every iteration.

    Args:
        hparams: with the iterations at which the stages change.
        class_ids: ids of the unlabelled classes: all in the annotation-free setting, else the unseen ones.
        teacher: labels in the guided stage; None where the labels of a run are proposed, or nobody guides.
        ignore: label of pixels that are left out.
    """

    def __init__(
        self, hparams: Hyperparameters, class_ids: Sequence[int], teacher: Teacher | None, ignore: int
    ) -> None:
        self.hparams, self.class_ids, self.teacher, self.ignore = hparams, tuple(class_ids), teacher, ignore

    def stage(self, iteration: int) -> str:
        """Name of the stage that an iteration belongs to, counted from 0."""
        if not self.class_ids:
            return TRUTH
        guided, own = iteration < self.hparams.guided, iteration >= self.hparams.self_training_from
        return (BOTH if own else GUIDED) if guided else (SELF if own else TRUTH)

    @torch.no_grad()
    def __call__(self, batch: Batch, logits: Tensor, iteration: int) -> tuple[Tensor, ...]:
        """Labels for the loss, which is the mean over them: the teacher's, the student's own, or these two.

        Alone, the student's own labels confirm whatever it says already, and classes that it is unsure of drown in
        the background. The teacher's labels beside them hold it (hard bootstrapping, arXiv:1412.6596).

        Args:
            batch: with given labels, and proposed ones where a run has them.
            logits: [B, C, h, w] of the student for this very batch, of any size.
            iteration: counted from 0.

        Returns:
            One or two int32 [B, H, W], class ids or the ignore value.
        """
        given = batch.given
        stage, found = self.stage(iteration), []
        if stage in (GUIDED, BOTH):
            found.append(self._guidance(batch))
        if stage in (SELF, BOTH):
            found.append(fill_unlabelled(given, self._allowed(logits), self.class_ids))
        labels = [torch.where(one == UNLABELLED, self.ignore, one) for one in found or [given]]
        if batch.human is None or batch.proposed is None:
            return tuple(labels)
        # Whoever teaches, what a human has said stands.
        return tuple(torch.where(batch.human == 1, batch.proposed, one) for one in labels)

    def leaked(self, given: Tensor) -> Tensor:
        """How many pixels of a ground truth [B, H, W] show an unlabelled class: a scalar on the device."""
        return count_leaked(given, leak_table(self.class_ids, self.ignore, given.device))

    def leak(self, given: Tensor) -> RuntimeError:
        """The error of such pixels. They are a bug, and no result of a run that has seen them means anything."""
        classes = leaked_classes(given, self.class_ids)
        return RuntimeError(f"ground truth of classes {classes}, which nobody may know, reached the training")

    def _allowed(self, logits: Tensor) -> Tensor:
        """Maps of the unlabelled classes; all of them as they are, since picking them out would copy them."""
        if self.class_ids == tuple(range(logits.shape[1])):
            return logits
        return logits.index_select(1, class_index(self.class_ids, logits.device))

    def _guidance(self, batch: Batch) -> Tensor:
        if batch.proposed is not None:
            return torch.where(batch.given == UNLABELLED, batch.proposed, batch.given)
        return batch.given if self.teacher is None else self.teacher.fill(batch.images, batch.given)
