"""The options of the commands, each with its default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clipseg_cli.config.constants import BACKGROUND_WORDS, BUNDLED_MODEL, PLAIN_BACKGROUND, SALIENCY_HEADS
from clipseg_cli.config.protocols import PROTOCOLS

if TYPE_CHECKING:
    from clipseg_cli.config.recipes import Head

AUTO = "auto"
"""Instead of first weights for a student: those that fit who labels and the backbone."""

Setting = Literal["annotation-free", "zero-shot", "supervised"]

REFINEMENTS = ("guide", "saliency", "prompt_denoising", "key_smoothing", "presence", "pamr")
"""Options that make other labels of what a method reads."""

OF_A_CLIP = (
    "model",
    "pretrained",
    "method",
    "protocol",
    "templates",
    *(name for name in REFINEMENTS if name != "pamr"),
)
"""Options that mean nothing for a student, which is used as it was trained; PAMR looks at pixels, whoever labels."""

TEACHING = ("method", "protocol", "templates", *REFINEMENTS)
"""How a CLIP labels, beside its weights; a student remembers it of its teacher."""

BEST = "auto"
"""Instead of a method: the best that asks no second network, judged by published averages (README) and, for the
bundled model, by what it scores on drawn scenes. Instead of a kind of saliency: the one with which CLIP-DIY was
published, where the model has a head for it."""

NO_SALIENCY = "none"


def best_method(model: str, protocol: str) -> str:
    """What `--method auto` means.

    Args:
        model: an architecture; towers that are not called "ViT-" after CLIP's own have no published comparison, and the
            plainest reading fits them all.
        protocol: its publication may be about a method of its own.
    """
    own = PROTOCOLS[protocol].method if protocol in PROTOCOLS else ""
    if own or model == BUNDLED_MODEL:
        return own or "vanilla"
    return "sc_clip" if model.startswith("ViT-") and "SigLIP" not in model else "maskclip"


def best_saliency(model: str, pretrained: str | None, method: str, protocol: str) -> str:
    """What `--saliency auto` means.

    Args:
        model: only those in the package have heads of their own, which fit the weights in the package.
        pretrained: other weights for it.
        method: CLIP-DIY is published with FOUND; all others do without.
        protocol: a publication fixes its settings, and none of them is about our models.
    """
    fits = model in SALIENCY_HEADS and pretrained in (None, "bundled")
    diy = method.replace("-", "_") == "clip_diy" and protocol == InferenceConfig.protocol
    return "found" if fits and diy else NO_SALIENCY


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
    method: str = BEST
    guide: str = ""
    """Another network, for methods that ask for one: dino, dino-b8, dinov2, a ViT of timm, NAME=FILE; or a head of
    CLIP-DINOiser."""
    saliency: str = BEST
    """What decides where the background is: "none", "clip", "dino", "found" (these two with "=FILES"), or a folder."""
    protocol: str = "default"
    templates: str | None = None
    """None: those of the protocol."""
    prompt_denoising: float = 0.0
    key_smoothing: float = 0.0
    presence: bool = False
    """Drop classes that are nowhere in the picture."""
    pamr: int = 0
    """Steps of pixel-adaptive refinement at full size; 0 is off."""
    hyperparameters: tuple[str, ...] = ()
    """Of `--set`: NAME.HYPERPARAMETER=VALUE, or NAME=VALUE to turn a refinement on."""
    short_side: int | None = None
    window: int | None = None
    stride: int | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 16
    max_megapixels: float = 100.0
    workers: int = 2

    @property
    def method_name(self) -> str:
        """The method, or the one that "auto" stands for."""
        return best_method(self.model, self.protocol) if self.method == BEST else self.method

    def saliency_name(self, background: bool = True) -> str:
        """What finds the foreground, or what "auto" stands for: nothing where no class is the background."""
        if self.saliency != BEST:
            return self.saliency
        if not background or self.student:
            return NO_SALIENCY
        return best_saliency(self.model, self.pretrained, self.method_name, self.protocol)

    def refinements(self, background: bool = True) -> dict[str, Any]:
        """Those of `REFINEMENTS` that are in use, for classes with or without a background."""
        own = {name: getattr(self, name) for name in REFINEMENTS}
        own["saliency"] = self.saliency_name(background)
        return {name: value for name, value in own.items() if value and value != NO_SALIENCY}


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
        seed: random seed for the corruption noise.
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
        preset: name of a recipe; None takes that of the model that labels, else of the benchmark, or "voc".
        backbone, head, crop, step_images, iterations, rate, weight_decay: of the recipe, overruled.
        guided: iterations in which the teacher labels; None takes the recipe's share of them.
        self_from: iteration with which self-training begins, counted from 0; None: when `guided` are over, or as
            the recipe says; a number that is not reached switches it off. Where the two overlap, each counts half.
        init: "auto", "emoji" (the weights in the package), "imagenet", "none", or a file of weights of the backbone;
            "auto" takes those in the package where the bundled model labels and they fit, else those of ImageNet.
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

    saliency: str = NO_SALIENCY
    """Crops are not pictures of something on something: only if it is asked for."""
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
    init: str = AUTO
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
