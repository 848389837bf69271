"""mIoU of the dense read-out on fixed scenes with the VOC things and nine surfaces as candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recipes.emoji.concepts import EVALUATED_BACKGROUNDS, VOC_OBJECTS
from recipes.emoji.net import TinyClip, dense_logits, normalise
from recipes.emoji.scenes import Scene, SceneMaker, SceneStyle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from recipes.emoji.vocabulary import Vocabulary
    from recipes.emoji.words import TextSampler

READ_BY = ("vanilla", "sclip", "clearclip", "naclip", "sc_clip", "gem")
"""Ways to read the tower that are measured beside MaskCLIP's, on a third of the scenes of the held-out art."""

NAMES = (*VOC_OBJECTS, *EVALUATED_BACKGROUNDS)
MEASURED = SceneStyle(augment=False, voc_only=True, low=45, high=130, density=3.5)


@dataclass(frozen=True)
class Score:
    """mIoU over all candidates and over the things alone, 0..1, and the IoU of each class (nan: absent)."""

    everything: float
    things: float
    iou: NDArray[np.float64]


def score_confusion(confusion: NDArray[np.int64], things: int = len(VOC_OBJECTS)) -> Score:
    """Score a confusion matrix [truth, prediction]; a class that nobody has or claims is left out."""
    hit = np.diag(confusion).astype(float)
    union = confusion.sum(0) + confusion.sum(1) - hit
    iou = np.where(union > 0, hit / np.maximum(union, 1), np.nan)
    return Score(float(np.nanmean(iou)), float(np.nanmean(iou[:things])), iou)


def fixed_scenes(vocabulary: Vocabulary, count: int, size: int, seed: int) -> list[Scene]:
    """Scenes of the measured kind; their labels become indices into NAMES."""
    maker = SceneMaker(vocabulary, seed, MEASURED)
    position = {vocabulary.index[name]: i for i, name in enumerate(NAMES)}
    scenes = [maker.make(size) for _ in range(count)]
    for scene in scenes:
        scene.labels = [position[label] for label in scene.labels]
    return scenes


def label_map(scene: Scene) -> NDArray[np.uint8]:
    """[H, W] indices into NAMES."""
    return np.array(scene.labels, np.uint8)[scene.instances]


@torch.no_grad()
def evaluate(
    model: TinyClip, texts: TextSampler, scenes: list[Scene], batch: int = 4, method: str = "maskclip"
) -> Score:
    """Every pixel takes the best of the 28 names."""
    text = normalise(model.encode_text(texts.plain(list(NAMES)).to(model.tokens.device)))
    confusion = np.zeros((len(NAMES), len(NAMES)), np.int64)
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        logits = dense_logits(model, np.stack([scene.image for scene in part]), text, method)
        for scene, guess in zip(part, logits.argmax(1).cpu().numpy(), strict=True):
            pairs = label_map(scene).astype(np.int64) * len(NAMES) + guess
            confusion += np.bincount(pairs.ravel(), minlength=confusion.size).reshape(confusion.shape)
    return score_confusion(confusion)
