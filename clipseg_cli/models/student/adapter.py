"""A student where a CLIP is expected: the inference loop reads both in the same way."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from clipseg_cli.config import PLAIN_BACKGROUND
from clipseg_cli.models.student.files import student_fingerprint
from clipseg_cli.types import DenseFeatures, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from clipseg_cli.models.student.files import StudentCard
    from clipseg_cli.models.student.network import Student
    from clipseg_cli.types import ClassList, Method


class StudentReader:
    """Dense reading of a student; it has no keys."""

    def __init__(self, student: Student) -> None:
        self.student = student
        self.patch = student.stride

    def __call__(self, image: Tensor, regions: Tensor | None = None) -> DenseFeatures:
        """Normalised image [B, 3, H, W] -> features on the grid (ceil(H / stride), ceil(W / stride))."""
        features = self.student.features(image.contiguous(memory_format=torch.channels_last))
        return DenseFeatures(features, None, features)

    def logits(self, features: Tensor, text_embeds: Tensor) -> Tensor:
        """As the student was trained: dot products with features as they are, unless it normalises them."""
        return self.student.logits(features, text_embeds)


@dataclass(frozen=True)
class StudentModel:
    """A student with its card, as a `DenseModel`.

    Attributes:
        student: in eval mode.
        card: what was written beside its weights.
        pretrained: where it came from, for people.
    """

    student: Student
    card: StudentCard
    pretrained: str

    @property
    def name(self) -> str:
        """As in "student resnet101c"."""
        return f"student {self.card.shape.backbone}"

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over weights and shape."""
        return student_fingerprint(self.student)

    @property
    def mean(self) -> tuple[float, float, float]:
        """Of images in [0, 1]."""
        return self.card.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Of images in [0, 1]."""
        return self.card.std

    image_size = 0
    """Whole images go through at once, as in training."""

    logit_scale = 1.0
    """The student's own logits go into the softmax that it was trained with."""

    words = None

    @property
    def short_side(self) -> int:
        """Pixels; 0 keeps the image's own size."""
        return self.card.short_side

    def reader(self, method: Method | None, how: Reading) -> StudentReader:
        """How its features are read; all options are about a CLIP and must be left out."""
        if method is not None or dataclasses.replace(how, black=None) != Reading():
            raise TypeError("a student is read as it is")
        return StudentReader(self.student)

    def with_words(
        self, classes: ClassList, embed: Callable[[Sequence[str]], Tensor]
    ) -> tuple[ClassList, Tensor]:
        """A classifier for any words: those it was trained with as they were, others from the text tower.

        Args:
            classes: the words; where the student has learnt a background, that stands for all words of theirs.
            embed: unit embeddings [n, D] of n words, of the text tower that the student was trained with; only
                called if there is a new word.

        Returns:
            The classes with one word for a learnt background, and unit rows [Q, D] for their queries.
        """
        learnt = self.student.background is not None
        if learnt:
            classes = classes.with_background_word(PLAIN_BACKGROUND)
        own = self.student.queries().detach()
        known = {
            word: row
            for word, c, row in zip(
                self.card.classes.queries, self.card.classes.query_to_class, own, strict=True
            )
            if not (learnt and c == self.card.classes.background)
        }
        new = [
            word
            for word, c in zip(classes.queries, classes.query_to_class, strict=True)
            if word not in known and not (learnt and c == classes.background)
        ]
        fresh = dict(zip(new, self.student.rows_of(embed(new).to(own)), strict=True)) if new else {}
        rows = []
        for word, c in zip(classes.queries, classes.query_to_class, strict=True):
            if learnt and c == classes.background:
                rows.append(own[self._learnt_query])
            else:
                rows.append(known[word] if word in known else fresh[word])
        return classes, torch.stack(rows)

    @property
    def _learnt_query(self) -> int:
        return self.card.classes.query_to_class.index(self.card.classes.background or 0)
