"""Every default, once. Frozen dataclasses without torch, so that `--help` can import them quickly."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

IGNORE_INDEX = 255
"""Label value of pixels that nobody scores or learns from, as in PASCAL VOC."""

IGNORE_INDEX_16 = 65_535
"""The same where 8 bits do not hold the class ids."""

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
        background_threshold: winners less probable than this become background; None means 0.
        words: which words of a benchmark stand for its classes: the key in its file.
        square: both sides are resized to `short_side`, whatever the aspect.
        upsample: "logits" upsamples scores and then decides, "labels" decides at network size and repeats.
        score_short_side: labels are resized (nearest) to this short side before they are scored; None scores
            them at their own size.
        from_benchmark: which of these fields a benchmark's file fills in.
        exceptions: benchmark -> fields with other values there.
        benchmarks: those that the source itself reports; the first that fits a data set is its default.
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
    background_threshold: float | None = None
    words: str = "prompt_names"
    square: bool = False
    upsample: Literal["logits", "labels"] = "logits"
    score_short_side: int | None = None
    from_benchmark: tuple[str, ...] = ()
    exceptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    benchmarks: tuple[str, ...] = ()
    source: str = ""

    def on(self, benchmark: str | None, facts: Mapping[str, Any]) -> Protocol:
        """The settings that hold on one benchmark.

        Args:
            benchmark: its name, or None for other data.
            facts: what its file says (`data.classes.load_benchmark`); empty for other data.
        """
        own: dict[str, Any] = {key: facts[key] for key in self.from_benchmark if key in facts}
        own.update(self.exceptions.get(benchmark or "", {}))
        return dataclasses.replace(self, **own)


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
    words="maskclip_prompt_names",
    # (520, 520) with the ratio kept bounds the long side.
    exceptions={"context59": {"short_side": 520, "long_side": 520}},
    benchmarks=("voc20", "context59", "coco-stuff"),
    source="chongzhou96/MaskCLIP@245d31f, configs/_base_/datasets/",
)

SCLIP_PROTOCOL = Protocol(
    name="sclip",
    # The base configuration, on which later work compares methods. SCLIP's own runs raise the scale on three
    # benchmarks (65 on voc21, with a rule on areas; 50 on context60 and coco-object).
    short_side=336,
    long_side=2048,
    keep_exact_size=True,
    window=224,
    stride=112,
    stitch="pixel",
    softmax_scale=40.0,
    mean=(122.771 / 255, 116.746 / 255, 104.094 / 255),
    std=(68.501 / 255, 66.632 / 255, 70.323 / 255),
    from_benchmark=("short_side", "background_threshold"),
    benchmarks=(
        "voc21",
        "context60",
        "coco-object",
        "voc20",
        "context59",
        "coco-stuff",
        "ade20k",
        "cityscapes",
    ),
    source="wangf3014/SCLIP@b56bd30, clip_segmentor.py and configs/base_config.py",
)

CLIP_DIY_PROTOCOL = Protocol(
    name="clip-diy",
    short_side=256,
    long_side=256,
    keep_exact_size=True,
    square=True,
    window=0,
    stitch="pixel",
    softmax_scale=1.0,
    templates="clip-diy",
    words="clip_diy_prompt_names",
    upsample="labels",
    score_short_side=448,
    benchmarks=("voc21", "coco-object"),
    source="wysoczanska/clip-diy@f88932d, configs/cfg_clip_pascal.yaml, src/datasets/pascal_voc.py",
)

PROTOCOLS = {p.name: p for p in (DEFAULT_PROTOCOL, SCLIP_PROTOCOL, MASKCLIP_PROTOCOL, CLIP_DIY_PROTOCOL)}


@dataclass(frozen=True)
class InferenceConfig:
    """How pictures become label maps; what every command that labels has in common, each default once."""

    classes: str = ""
    background: str = ",".join((*BACKGROUND_WORDS, PLAIN_BACKGROUND))
    background_threshold: float | None = None
    """None: that of the protocol."""
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
    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 16
    max_megapixels: float = 100.0
    workers: int = 2


@dataclass(frozen=True)
class SegmentConfig(InferenceConfig):
    """All that `clipseg segment` needs to know."""

    images: tuple[str, ...] = ()
    out: Path = Path("clipseg-out")
    heatmaps: bool = False


@dataclass(frozen=True)
class DataConfig(InferenceConfig):
    """What the commands over a whole data set have in common.

    Attributes:
        background: as for single pictures; "auto" adds the usual words where `classes` names some things in a
            folder of pictures, and none where a data set brings its own classes.
        dataset: its folder.
        benchmark: which class list, where the data set has several; None takes its default.
        split: its name, or a text file of picture names; None takes the command's default.
        unseen: names by comma, or "preset" for the benchmark's own; empty for none.
    """

    background: str = "auto"
    dataset: str = ""
    benchmark: str | None = None
    split: str | None = None
    unseen: str = ""


@dataclass(frozen=True)
class PseudolabelConfig(DataConfig):
    """All that `clipseg pseudolabel` needs to know.

    Attributes:
        out: folder of the runs.
        name: the run's own folder in it; None makes one up from data set, split and model.
        min_confidence: pixels less sure than this become 255.
        keep_labels: "none" labels every pixel; "seen" keeps the ground truth of the seen classes.
        shard: (index from 1, count): the part of the work that this process does.
    """

    out: Path = Path("runs/pseudolabel")
    name: str | None = None
    min_confidence: float = 0.0
    keep_labels: Literal["none", "seen"] = "none"
    shard: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class EvalConfig(DataConfig):
    """All that `clipseg eval` needs to know.

    Attributes:
        predictions: folder of label pictures made by any tool, instead of a model; empty for a model.
        partial: score what predictions there are, even if some are missing.
        corrupt: names of corruptions, or ("all",); empty for the pictures as they are.
        severity: of the corruptions, each 1 to 5.
        seed: of their noise.
        out: folder of the runs.
        name: the run's own folder in it; None makes one up.
    """

    predictions: str = ""
    partial: bool = False
    corrupt: tuple[str, ...] = ()
    severity: tuple[int, ...] = (1, 2, 3, 4, 5)
    seed: int = 0
    out: Path = Path("runs/eval")
    name: str | None = None


def ignore_value(classes: int) -> int:
    """The label value for "ignore" beside so many class ids: 255, or 65535 where ids need 16 bits."""
    return IGNORE_INDEX if classes <= IGNORE_INDEX else IGNORE_INDEX_16
