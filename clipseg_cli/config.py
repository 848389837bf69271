"""Every default, once. Frozen dataclasses without torch, so that `--help` can import them quickly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

IGNORE_INDEX = 255

BACKGROUND_WORDS = ("building", "ground", "grass", "tree", "sky")
"""What MaskCLIP adds to a list of things so that they do not split the whole photo between them."""

PLAIN_BACKGROUND = "background"

BUNDLED_MODEL = "emoji"

Stitch = Literal["patch", "pixel"]
KeyNorm = Literal["token", "position"]


@dataclass(frozen=True)
class Protocol:
    """The settings that a published code fixes, as a named whole.

    Attributes:
        name: what `--protocol` takes.
        short_side, long_side: pixels after the resize; None asks the model.
        keep_exact_size: True resizes to exactly that size and pads inside the tower (the published order);
            False rounds both sides to whole patches, so that windows lie on one patch grid.
        window, stride: pixels; 0 means the whole image at once; None asks the model.
        stitch: "pixel" upsamples every window by itself and averages pixels (the published order), "patch"
            averages on the patch grid and upsamples once.
        softmax_scale: factor on the cosines before the softmax; None asks the model.
        key_norm: axis over which key smoothing normalises the keys: "token" as the paper says, "position"
            as the published code does.
        activation, ln_eps: forced on the image tower; None keeps what the checkpoint was trained with.
        mean, std: of the image in [0, 1]; None asks the model.
        templates: sentences around each word, as `--templates` takes them.
        source: where these settings come from.
    """

    name: str
    short_side: int | None = None
    long_side: int | None = None
    keep_exact_size: bool = False
    window: int | None = None
    stride: int | None = None
    stitch: Stitch = "patch"
    softmax_scale: float | None = None
    key_norm: KeyNorm = "token"
    activation: Literal["gelu", "quick_gelu"] | None = None
    ln_eps: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    templates: str = "imagenet"
    source: str = ""


DEFAULT_PROTOCOL = Protocol(name="default", long_side=2048, source="this tool")

MASKCLIP_PROTOCOL = Protocol(
    name="maskclip",
    short_side=512,
    long_side=2048,
    keep_exact_size=True,
    window=0,
    stitch="pixel",
    softmax_scale=1.0,
    key_norm="position",
    activation="gelu",
    ln_eps=1e-6,
    mean=(123.675 / 255, 116.28 / 255, 103.53 / 255),
    std=(58.395 / 255, 57.12 / 255, 57.375 / 255),
    templates="maskclip",
    source="chongzhou96/MaskCLIP@245d31f, configs/_base_/datasets/pascal_voc12_20.py",
)

PROTOCOLS = {p.name: p for p in (DEFAULT_PROTOCOL, MASKCLIP_PROTOCOL)}


@dataclass(frozen=True)
class SegmentConfig:
    """All that `clipseg segment` needs to know, and the only place where its defaults stand."""

    images: tuple[str, ...] = ()
    classes: str = ""
    background: str = ",".join((*BACKGROUND_WORDS, PLAIN_BACKGROUND))
    background_threshold: float = 0.0
    model: str = "ViT-B-16"
    pretrained: str | None = None
    """None: openai where the architecture has that tag, else its first tag; unused for the bundled model."""
    method: str = "maskclip"
    protocol: str = "default"
    templates: str | None = None
    """None: those of the protocol."""
    prompt_denoising: float = 0.0
    key_smoothing: float = 0.0
    short_side: int | None = None
    window: int | None = None
    stride: int | None = None
    out: Path = Path("clipseg-out")
    heatmaps: bool = False
    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 16
    max_megapixels: float = 100.0
    workers: int = 2
