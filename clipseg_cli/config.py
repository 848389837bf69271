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

UNLABELLED = -1
"""In training, a pixel that the teacher or the student itself may label."""

BACKGROUND_WORDS = ("building", "ground", "grass", "tree", "sky")
"""What MaskCLIP adds to a list of things so that they do not split the whole photo between them."""

PLAIN_BACKGROUND = "background"

BUNDLED_MODEL = "emoji"

Stitch = Literal["patch", "pixel"]
KeyNorm = Literal["token", "position"]
Head = Literal["deeplabv2", "deeplabv3plus"]
Setting = Literal["annotation-free", "zero-shot", "supervised"]


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


OF_A_CLIP = ("model", "pretrained", "method", "protocol", "templates", "prompt_denoising", "key_smoothing")
"""Options that mean nothing for a student, which is used as it was trained."""


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
    student: str = ""
    """A run of `clipseg train`, or one of its checkpoints, instead of a CLIP; empty for the CLIP."""
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


@dataclass(frozen=True)
class Recipe:
    """How a student is trained: the numbers of a publication, or ours, under one name.

    Attributes:
        name: what `--preset` takes.
        backbone: of the student, a ResNet of timm.
        head: "deeplabv2" or "deeplabv3plus"; `zero_shot_head` is that of the zero-shot setting.
        short_side, long_side: to which a picture is resized, keeping its ratio, before the random scale: the
            largest size with a short side and a long side of at most this; a short side of 0 keeps the
            picture's own size.
        crop: side of the square crop, in pixels.
        scale: range of the random scale.
        max_share: a crop is drawn again (up to ten times) while one class has more than this share of it.
        batch_size: crops in one iteration, over all processes.
        iterations, zero_shot_iterations: of the annotation-free setting; of those with ground truth.
        rate, min_rate, power: the learning rate falls from the one to the other as (1 - t)**power.
        optimiser: "sgd", as published, or "adamw", which learns more in few iterations.
        centre: classify by the words less their mean; see `StudentShape`.
        momentum: of SGD.
        weight_decay: on all parameters; `zero_shot_weight_decay` in the settings with ground truth.
        guided: share of the iterations in which the teacher labels; self-training begins behind it.
        validations: how often the student is scored on the way.
        benchmarks: for which this is the default.
        source: where these numbers come from.
    """

    name: str
    backbone: str
    head: Head = "deeplabv2"
    zero_shot_head: Head = "deeplabv2"
    short_side: int = 512
    long_side: int = 2048
    crop: int = 512
    scale: tuple[float, float] = (0.5, 2.0)
    max_share: float = 0.75
    batch_size: int = 16
    iterations: int = 2000
    zero_shot_iterations: int = 20_000
    rate: float = 0.01
    zero_shot_rate: float = 0.01
    min_rate: float = 1e-4
    power: float = 0.9
    optimiser: Literal["sgd", "adamw"] = "sgd"
    centre: bool = False
    momentum: float = 0.9
    weight_decay: float = 5e-4
    zero_shot_weight_decay: float = 5e-4
    guided: float = 0.1
    validations: int = 10
    benchmarks: tuple[str, ...] = ()
    source: str = ""


_MASKCLIP_CONFIGS = "chongzhou96/MaskCLIP@245d31f, configs/maskclip_plus/"

VOC_RECIPE = Recipe(
    name="voc",
    backbone="resnet101c",
    benchmarks=("voc20", "voc21"),
    source=_MASKCLIP_CONFIGS,
)

CONTEXT_RECIPE = Recipe(
    name="context",
    backbone="resnet101c",
    zero_shot_head="deeplabv3plus",
    short_side=520,
    long_side=520,
    crop=480,
    iterations=4000,
    zero_shot_iterations=40_000,
    zero_shot_rate=0.004,
    zero_shot_weight_decay=1e-4,
    benchmarks=("context59", "context60"),
    source=_MASKCLIP_CONFIGS,
)

COCO_STUFF_RECIPE = Recipe(
    name="coco-stuff",
    backbone="resnet101c",
    iterations=8000,
    zero_shot_iterations=80_000,
    benchmarks=("coco-stuff",),
    source=_MASKCLIP_CONFIGS,
)

QUICK_RECIPE = Recipe(
    name="quick",
    backbone="resnet10t",
    short_side=144,
    crop=128,
    scale=(0.7, 1.6),
    iterations=600,
    zero_shot_iterations=600,
    rate=1e-3,
    zero_shot_rate=1e-3,
    min_rate=1e-5,
    optimiser="adamw",
    centre=True,
    weight_decay=0.02,
    zero_shot_weight_decay=0.02,
    guided=0.9,
    validations=3,
    source="this tool: small pictures, a small network, minutes on a CPU",
)

RECIPES = {r.name: r for r in (VOC_RECIPE, CONTEXT_RECIPE, COCO_STUFF_RECIPE, QUICK_RECIPE)}


@dataclass(frozen=True)
class TrainConfig(DataConfig):
    """All that `clipseg train` needs to know; None asks the recipe.

    The options of `DataConfig` are those of the teacher. With `labels` they are those of the run, whose class
    list, data set and teacher hold.

    Attributes:
        labels: a pseudo-label run; empty with `teacher`, or for the newest run.
        teacher: let the frozen CLIP label every crop, instead of a run.
        setting: "annotation-free" reads no ground truth for training; "zero-shot" reads that of the seen
            classes; "supervised" all of it, to compare with.
        targets: "labels" are pseudo labels; "features" is distillation: the student's features learn to equal
            the teacher's (L1), and labels come from the ground truth alone.
        preset: name of a recipe; None takes that of the benchmark, or "voc".
        backbone, head, crop, step_images, iterations, rate, weight_decay: of the recipe, overruled.
        guided: iterations in which the teacher labels; None takes the recipe's share of them.
        self_from: iteration with which self-training begins, counted from 0; None: when `guided` are over; a
            number that is not reached switches it off.
        init: "imagenet", "none", or a file of weights of the backbone.
        normalise: classify features of unit length (times 100) instead of features as they are.
        centre: classify by the words less their mean; None asks the recipe.
        distill: weight of the distillation.
        accumulate: parts of a batch that go through the network one after the other.
        compile: let torch compile the student.
        validate_every: iterations; None: as often as the recipe says; 0: only at the end.
        validation_images: how many of the validation split are used on the way; 0 for all.
        checkpoint_every: iterations; None: with every validation, and whenever five minutes are over.
        seed: of the weights, of the order of the pictures and of the crops.
        resume: go on with the run of that name.
        out: folder of the runs.
        name: the run's own folder in it; None makes one up.
    """

    labels: str = ""
    teacher: bool = False
    setting: Setting = "annotation-free"
    targets: Literal["labels", "features"] = "labels"
    preset: str | None = None
    backbone: str | None = None
    head: Head | None = None
    crop: int | None = None
    step_images: int | None = None
    iterations: int | None = None
    rate: float | None = None
    weight_decay: float | None = None
    guided: int | None = None
    self_from: int | None = None
    init: str = "imagenet"
    normalise: bool = False
    centre: bool | None = None
    distill: float = 1.0
    accumulate: int = 1
    compile: bool = False
    validate_every: int | None = None
    validation_images: int = 0
    checkpoint_every: int | None = None
    seed: int = 0
    resume: bool = False
    out: Path = Path("runs/train")
    name: str | None = None


@dataclass(frozen=True)
class ExportConfig:
    """All that `clipseg export` needs to know.

    Attributes:
        student: a run of `clipseg train`, or one of its checkpoints.
        onnx: the file to write.
        classes, background: as for `clipseg segment`; no classes takes those that the student was trained with,
            and their background.
        size: (H, W) of the picture that the check uses; any other size works too.
    """

    student: str = ""
    onnx: Path = Path("student.onnx")
    classes: str = ""
    background: str = InferenceConfig.background
    size: tuple[int, int] = (256, 256)


def ignore_value(classes: int) -> int:
    """The label value for "ignore" beside so many class ids: 255, or 65535 where ids need 16 bits."""
    return IGNORE_INDEX if classes <= IGNORE_INDEX else IGNORE_INDEX_16
