"""The keywords of `Segmenter.from_pretrained` and `Segmenter.from_run`, for editors and type checkers.

What is true is `InferenceConfig`, whose fields `takes_options` reads when it decorates a function; a checker does not
run it. A test holds both together: a new option fails there until it stands here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import torch


class StudentKeywords(TypedDict, total=False):
    """How anything that labels is run; help and ranges are those of the fields of `InferenceConfig`."""

    short_side: int | None
    window: int | None
    stride: int | None
    batch_size: int
    device: str | torch.device
    precision: str
    max_megapixels: float


class ClipKeywords(StudentKeywords, total=False):
    """How a frozen CLIP is read, too."""

    background_threshold: float | None
    templates: str | None
    quality: str
    method: str
    guide: str
    saliency: str
    protocol: str
    propagate: str
    prompt_denoising: float
    key_smoothing: float
    presence: str | bool
    pamr: int
    regions: str
    region_vote: bool | None
    memory: str
    compile: bool
