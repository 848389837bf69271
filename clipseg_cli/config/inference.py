"""How images become label maps: what every command that labels has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clipseg_cli.config.best import BEST, NO_SALIENCY, best_method, best_saliency
from clipseg_cli.config.brings import OFF
from clipseg_cli.config.constants import BACKGROUND_WORDS, PLAIN_BACKGROUND, PROPAGATIONS
from clipseg_cli.config.options import INFERENCE, METHOD, MODEL, WORDS, option
from clipseg_cli.config.protocols import PROTOCOLS, protocol_name
from clipseg_cli.config.quality import QUALITIES

REFINEMENTS = (
    *("guide", "saliency", "propagate", "prompt_denoising", "key_smoothing", "presence", "pamr"),
    *("regions", "region_vote", "memory"),
)
"""Options that make other labels of what a method reads."""

OF_PIXELS = ("pamr", "regions", "region_vote")
"""Those of them that look at pixels, whoever labels."""

OF_A_CLIP = (
    "model",
    "pretrained",
    "quality",
    "method",
    "protocol",
    "templates",
    "compile",
    *(name for name in REFINEMENTS if name not in OF_PIXELS),
)
"""Options that mean nothing for a student, which is used as it was trained."""

TEACHING = ("quality", "method", "protocol", "templates", *REFINEMENTS)
"""How a CLIP labels, beside its weights; a student remembers it of its teacher."""

PROBABILITY = (0, 1)
SIDE = 16_384
"""Pixels of the longest side that may be asked for."""


@dataclass(frozen=True)
class InferenceConfig:
    """How images become label maps; None leaves the choice to the protocol, then to the model."""

    classes: str = option(
        "",
        "The words: cat,couch|sofa (a bar joins synonyms), a text file, or a benchmark such as voc21. "
        "A student has its own.",
        metavar="LIST",
        flags=("--classes", "-c"),
        kind="classes",
    )
    model: str = option(
        "ViT-B-16",
        "An open_clip architecture, or emoji: the model for drawings in this package. See clipseg models.",
        metavar="NAME",
        flags=("--model", "-m"),
        kind="model",
    )
    background: str = option(
        ",".join((*BACKGROUND_WORDS, PLAIN_BACKGROUND)),
        "Words that together become the class background; none for a closed set.",
        panel=WORDS,
        metavar="WORDS",
    )
    background_threshold: float | None = option(
        None,
        "Pixels whose best class is less probable than P become background. Default: the protocol's.",
        panel=WORDS,
        metavar="P",
        within=PROBABILITY,
    )
    templates: str | None = option(
        None,
        "Prompt templates around each word: imagenet (80), maskclip (85), single, clip-diy, name, a text file, or "
        "floss:FOLDER (for each class those of the 80 that are surest of it on unlabelled images). "
        "Default: the protocol's, usually imagenet.",
        panel=WORDS,
        metavar="SET",
    )
    pretrained: str | None = option(
        None,
        "Weights: a tag of open_clip, or a file. Default: openai, or the first tag.",
        panel=MODEL,
        metavar="TAG|FILE",
    )
    quality: str = option(
        "",
        "fast, balanced or best: without, with one, or with all auxiliary networks; clipseg models --recipes says what "
        "each is, needs and costs. What you choose by name wins.",
        metavar="NAME",
        choices=QUALITIES,
        kind="quality",
    )
    student: str = option(
        "",
        "A network of your own instead of a CLIP: a run of clipseg train, RUN/best, or a checkpoint.",
        panel=MODEL,
        metavar="RUN",
    )
    method: str = option(
        BEST,
        "How dense features are read; clipseg models --methods lists all. auto is the best method that needs no "
        "auxiliary network: sc_clip for the ViTs of CLIP, vanilla for emoji, maskclip for other towers.",
        panel=METHOD,
        metavar="NAME",
        kind="method",
    )
    guide: str = option(
        "",
        "The auxiliary network of proxyclip, dinoiser, corrclip, --propagate lposs and memories of unlabelled images: "
        "dino, dino-b8, dinov2, a ViT of timm, NAME=FILE, a head of CLIP-DINOiser, or none.",
        panel=METHOD,
        metavar="NAME",
    )
    saliency: str = option(
        BEST,
        "What decides where the background is: none, clip (cuts of its own patches), dino (what DINO attends to), "
        "found (the model's own head of FOUND, else DINO and FOUND's), dino=FILE, found=HEAD,DINO (files), or a folder "
        "of maps. auto is found for clip_diy with a model that has a head (emoji), else none.",
        panel=METHOD,
        metavar="KIND",
    )
    protocol: str = option(
        "default",
        "default, or the exact settings of a publication, its networks and steps included: sclip, sclip-paper, "
        "sc-clip, maskclip, clip-diy, corrclip, lposs, pearl, resclip. What you choose wins.",
        panel=METHOD,
        metavar="NAME",
        choices=tuple(PROTOCOLS),
        read=protocol_name,
        kind="protocol",
    )
    propagate: str = option(
        "",
        "Let scores flow: lposs (between patches that look alike, to the --guide if there is one, else to the model), "
        "lposs+ (and between near pixels of one colour), pearl (over the image, up to its edges), or none.",
        panel=METHOD,
        metavar="KIND",
        choices=(*PROPAGATIONS, OFF),
        kind="propagation",
    )
    prompt_denoising: float = option(
        0.0,
        "Drop classes that are nowhere more probable than T (paper: 0.5; 0 is off).",
        panel=METHOD,
        metavar="T",
        within=PROBABILITY,
    )
    key_smoothing: float = option(
        0.0,
        "Smooth patches less sure than T over similar keys (paper: 1.0; 0 is off).",
        panel=METHOD,
        metavar="T",
        within=PROBABILITY,
    )
    presence: str = option(
        "",
        "Drop classes that are nowhere in the image. Alone, or evidence: no coherent part of it, and no window as a "
        "whole; freecp: their maps do not hold together, or a crop looks like another class.",
        panel=METHOD,
        metavar="[KIND]",
        choices=("evidence", "freecp"),
        bare="evidence",
        kind="kind of presence",
    )
    pamr: int = option(
        0,
        "Steps of pixel-adaptive refinement: let scores flow between neighbouring pixels that look alike (NACLIP: 10; "
        "0 is off).",
        panel=METHOD,
        metavar="STEPS",
        within=(0, 100),
    )
    regions: str = option(
        "",
        "Where masks of regions come from: superpixels (no weights), folder=DIR (id maps by the names of the images), "
        "eomt, mask2former or sam2 (networks; =WEIGHTS names others, on the hub or in a folder), or none. "
        "clipseg models --regions lists them.",
        panel=METHOD,
        metavar="NAME",
        kind="source of regions",
    )
    region_vote: bool | None = option(
        None,
        "All pixels of a region take the label that most of them have; needs --regions.",
        panel=METHOD,
        flags=("--region-vote/--no-region-vote",),
    )
    memory: str = option(
        "",
        "A bank made with clipseg index: of unlabelled images, whose regions say what others are (needs --regions, or "
        "takes the bank's), or, with --labels, of corrected ones. It brings its own --short-side, --window and "
        "--stride.",
        panel=METHOD,
        metavar="BANK",
    )
    hyperparameters: tuple[str, ...] = option(
        (),
        "A hyper-parameter of a method, refinement or source of regions: naclip.std=3, pamr.dilations=8,16. Repeat for "
        "more; clipseg models --methods lists them.",
        panel=METHOD,
        metavar="NAME=VALUE",
        flags=("--set",),
        shown="",
        kind="hyper-parameter",
    )
    short_side: int | None = option(
        None,
        "Resize the short side to this; 0 keeps the size. Default: the model's own.",
        panel=INFERENCE,
        metavar="PIXELS",
        within=(0, SIDE),
    )
    window: int | None = option(
        None,
        "Side of the sliding window; 0 for the whole image at once. Default: the model's own.",
        panel=INFERENCE,
        metavar="PIXELS",
        within=(0, SIDE),
    )
    stride: int | None = option(
        None,
        "Step between windows. Default: half a window.",
        panel=INFERENCE,
        metavar="PIXELS",
        within=(1, SIDE),
    )
    batch_size: int = option(
        16, "Windows in one forward pass.", panel=INFERENCE, metavar="N", within=(1, 4096)
    )
    device: str = option(
        "auto", "auto, cpu, cuda, cuda:1 or mps.", panel=INFERENCE, metavar="NAME", kind="device"
    )
    precision: str = option(
        "auto",
        "auto (bf16 where the device has units for it, else fp32), fp32 or bf16.",
        panel=INFERENCE,
        metavar="NAME",
        choices=("auto", "fp32", "bf16"),
        kind="precision",
    )
    compile: bool = option(
        False,
        "Let torch compile the blocks of the model, on CUDA: seconds at the start, other rounding, needs triton.",
        panel=MODEL,
        flags=("--compile",),
    )
    max_megapixels: float = option(
        100.0,
        "Refuse larger images before they are decoded.",
        panel=INFERENCE,
        metavar="N",
        within=(0.001, 100_000),
    )
    workers: int = option(
        2,
        "Threads that decode and write while the model computes.",
        panel=INFERENCE,
        metavar="N",
        within=(1, 64),
    )

    @property
    def method_name(self) -> str:
        """The method, or the one that "auto" stands for."""
        return best_method(self.model, self.protocol, self.quality) if self.method == BEST else self.method

    @property
    def format_texts(self) -> tuple[str, ...]:
        """Names of the output formats, by comma, that results are written in; none where it is not to be chosen."""
        return ()

    def saliency_name(self, background: bool = True) -> str:
        """What finds the foreground, or what "auto" stands for: nothing where no class is the background."""
        if self.saliency != BEST:
            return self.saliency
        if not background or self.student:
            return NO_SALIENCY
        return best_saliency(self.model, self.pretrained, self.method_name, self.protocol, self.quality)

    def refinements(self, background: bool = True) -> dict[str, Any]:
        """Those of `REFINEMENTS` that are in use, for classes with or without a background."""
        own = {name: getattr(self, name) for name in REFINEMENTS}
        own["saliency"] = self.saliency_name(background)
        return {name: value for name, value in own.items() if value and value != OFF}
