"""The student: a ResNet with a DeepLab head whose features live in the space of the words.

Its classifier is the text embeddings, frozen; only the background, which no word describes, may be learnt
(chongzhou96/MaskCLIP@245d31f, mmseg/models/decode_heads/aspp_headv2.py).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch
import torch.nn.functional as F
from torch import nn

from clipseg_cli.config import Head
from clipseg_cli.errors import ShapeError, UsageError, did_you_mean
from clipseg_cli.models.student.backbones import FIRST_STAGE, FIRST_STRIDE, LAST_STAGE, build_backbone
from clipseg_cli.models.student.heads import DeepLabV2Head, DeepLabV3PlusHead
from clipseg_cli.ops.similarity import merge_aliases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

LOGIT_SCALE = 100.0
"""Factor on cosines where features are taken at unit length: CLIP's own temperature."""


@dataclass(frozen=True)
class StudentShape:
    """What a student is built as.

    Attributes:
        backbone: one of `student_backbones.backbone_names()`.
        head: "deeplabv2" or "deeplabv3plus".
        width: D of the text embeddings.
        normalise: classify features of unit length, times 100, instead of features as they are.
        centre: classify by the words less their mean, at unit length again. CLIP's texts share a large part (a
            mean cosine of 0.7 to 0.95) that tells no class from another and slows the learning.
        output_stride: of the last stage of the backbone: 8, 16 or 32.
    """

    backbone: str
    head: Head
    width: int
    normalise: bool = False
    centre: bool = False
    output_stride: int = 8


class Student(nn.Module):
    """Images -> features and class logits.

    Args:
        shape: what to build; weights begin at random, from torch's global generator.
        text_embeds: [Q, D]; brought to unit length and kept frozen.
        query_to_class: [Q] class id of each query; every class from 0 on must occur.
        background: a class with exactly one query, in whose place an embedding is learnt; None for none.

    Attributes:
        stride: pixels from one feature to the next: the output stride, or 4 with the head "deeplabv3plus".

    Raises:
        UsageError: unknown backbone or head, or a background with several queries.
        ShapeError: the embeddings do not fit the width or the number of queries.
    """

    text_embeds: Tensor
    text_mean: Tensor | None

    def __init__(
        self,
        shape: StudentShape,
        text_embeds: Tensor,
        query_to_class: Sequence[int],
        background: int | None,
    ) -> None:
        super().__init__()
        classes = tuple(int(c) for c in query_to_class)
        if text_embeds.shape != (len(classes), shape.width):
            raise ShapeError(
                f"expected text embeddings of {len(classes)} x {shape.width}, got {list(text_embeds.shape)}"
            )
        if not classes or set(classes) != set(range(max(classes) + 1)):
            raise ShapeError("every class needs a query")
        if background is not None and classes.count(background) != 1:
            raise UsageError(
                f"class {background} is the background and has {classes.count(background)} words; "
                "exactly one can be learnt in their place"
            )
        self.shape = shape
        self.query_to_class = classes
        self.num_classes = max(classes) + 1
        self._merges = classes != tuple(range(len(classes)))
        self.backbone, self.head, self.stride = _build(shape)
        self.background = None if background is None else nn.Parameter(torch.randn(shape.width))
        self._background_query = -1 if background is None else classes.index(background)
        embeds = F.normalize(text_embeds.detach().float(), dim=1)
        words = [q for q in range(len(classes)) if q != self._background_query]
        if shape.centre and len(words) < 2:
            raise UsageError("the mean of one word leaves nothing of it", hint="leave out --centre")
        self.register_buffer("text_mean", embeds[words].mean(dim=0) if shape.centre else None)
        self.register_buffer("text_embeds", self.rows_of(embeds))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Read images.

        Args:
            image: [B, 3, H, W], normalised.

        Returns:
            Features [B, D, h, w] and class logits [B, C, h, w], float32 also under autocast, where h and w are
            ceil(H / stride) and ceil(W / stride). The logit of a class is that of its best query.
        """
        features = self.features(image)
        logits = self.logits(features)  # [B, Q, h, w]
        if self._merges:
            best = merge_aliases(logits.transpose(0, 1), self.query_to_class, self.num_classes)
            logits = best.transpose(0, 1)  # [B, C, h, w]
        return features, logits

    def features(self, image: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> features [B, D, h, w] in float32, for whoever brings words of their own."""
        found: Tensor = self.head(self.backbone(image)).float()
        return found

    def queries(self) -> Tensor:
        """Unit rows [Q, D]: the words, and the learnt background in its place."""
        if self.background is None:
            return self.text_embeds
        q = self._background_query
        learnt = F.normalize(self.background.float(), dim=0)[None]
        return torch.cat([self.text_embeds[:q], learnt, self.text_embeds[q + 1 :]])

    def rows_of(self, text_embeds: Tensor) -> Tensor:
        """Words as this student classifies by them: [n, D] outputs of the text tower -> unit rows [n, D]."""
        unit = F.normalize(text_embeds, dim=1)
        return unit if self.text_mean is None else F.normalize(unit - self.text_mean.to(unit), dim=1)

    def logits(self, features: Tensor, queries: Tensor | None = None) -> Tensor:
        """Dot products of features with queries, in float32 whatever autocast says.

        Args:
            features: [B, D, h, w].
            queries: [Q, D], unit rows; None takes the student's own.

        Returns:
            [B, Q, h, w]; with `normalise`, 100 times cosines.
        """
        kind = features.device.type
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            queries = self.queries() if queries is None else queries
            features = features.float()
            if self.shape.normalise:
                features = F.normalize(features, dim=1) * LOGIT_SCALE
            return torch.einsum("bdhw,qd->bqhw", features, queries.float())


def _build(shape: StudentShape) -> tuple[nn.Module, nn.Module, int]:
    """Backbone, head, and pixels from one feature to the next."""
    if shape.head == "deeplabv2":
        backbone, (channels,) = build_backbone(shape.backbone, shape.output_stride, (LAST_STAGE,))
        return backbone, DeepLabV2Head(channels, shape.width), shape.output_stride
    if shape.head == "deeplabv3plus":
        stages = (FIRST_STAGE, LAST_STAGE)
        backbone, (low, channels) = build_backbone(shape.backbone, shape.output_stride, stages)
        return backbone, DeepLabV3PlusHead(low, channels, shape.width), FIRST_STRIDE
    raise UsageError(f"unknown head '{shape.head}'", hint=did_you_mean(shape.head, get_args(Head)))
