"""`--protocol`: the settings that a published code fixes, as a named whole."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from clipseg_cli.config.brings import Brings

if TYPE_CHECKING:
    from collections.abc import Mapping

Stitch = Literal["patch", "pixel"]
KeyNorm = Literal["token", "position"]


@dataclass(frozen=True)
class Protocol(Brings):
    """The settings that a published code fixes, as a named whole.

    Attributes:
        name: what `--protocol` takes.
        method: the one that the publication is about; empty where it fits all.
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
        area_threshold: classes that cover at most this share of the foreground are dropped; 0 is off.
        words: which words of a benchmark stand for its classes: the key in its file.
        square: both sides are resized to `short_side`, whatever the aspect.
        upsample: "logits" upsamples scores and then decides, "labels" decides at network size and repeats.
        score_short_side: labels are resized (nearest) to this short side before they are scored; None scores
            them at their own size.
        from_benchmark: which of these fields a benchmark's file fills in.
        exceptions: benchmark -> fields with other values there.
        benchmarks: those that the source itself reports; the first that fits a data set is its default.
        source: where these settings come from.
        guide, regions, region_vote, propagate, hyperparameters: steps that belong to it; see `Brings`.
    """

    name: str
    method: str = ""
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
    area_threshold: float = 0.0
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
    method="maskclip",
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
    # The base configuration, on which later work compares methods.
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

SCLIP_PAPER_PROTOCOL = dataclasses.replace(
    SCLIP_PROTOCOL,
    name="sclip-paper",
    method="sclip",
    exceptions={
        "voc21": {"softmax_scale": 65.0, "area_threshold": 0.1},
        "context60": {"softmax_scale": 50.0},
        "coco-object": {"softmax_scale": 50.0},
    },
    source="wangf3014/SCLIP@b56bd30, clip_segmentor.py and configs/cfg_*.py: what its own figures were made with",
)

SC_CLIP_PROTOCOL = dataclasses.replace(
    SCLIP_PROTOCOL,
    name="sc-clip",
    method="sc_clip",
    from_benchmark=("short_side",),
    exceptions={
        "voc21": {"softmax_scale": 50.0, "background_threshold": 0.15, "area_threshold": 0.1},
        "context60": {"background_threshold": 0.15},
        "coco-object": {"softmax_scale": 55.0, "background_threshold": 0.35},
    },
    source="SuleBai/SC-CLIP@0417ba9, configs/cfg_*.py: what its own figures were made with",
)

CLIP_DIY_PROTOCOL = Protocol(
    name="clip-diy",
    method="clip_diy",
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

_WHOLE_VOC = {name: {"window": 0} for name in ("voc20", "voc21")}

CORRCLIP_PROTOCOL = dataclasses.replace(
    SCLIP_PROTOCOL,
    name="corrclip",
    method="corrclip",
    window=336,
    from_benchmark=(),
    exceptions={
        "voc21": {"background_threshold": 0.2},
        "context60": {"background_threshold": 0.15},
        "coco-object": {"background_threshold": 0.25},
        "ade20k": {"short_side": 448},
        "cityscapes": {"short_side": 448, "window": 224},
    },
    source="zdk258/CorrCLIP@103bc18, CorrCLIPv1/configs/ and CorrCLIPv2/configs/: with DINO ViT-B/8, masks of SAM 2 "
    "and the vote; its own figures are MetaCLIP's, with lists of synonyms of its own",
    guide="dino-b8",
    regions="sam2",
    region_vote=True,
)

LPOSS_PROTOCOL = dataclasses.replace(
    SCLIP_PROTOCOL,
    name="lposs",
    method="maskclip",
    short_side=448,
    softmax_scale=100.0,
    mean=None,
    std=None,
    from_benchmark=(),
    source="vladan-stojnic/LPOSS@e489a74, configs/lposs.yaml and segmentation/configs/: with DINO ViT-B/16; its own "
    "figures are those of --model ViT-B-16 --pretrained laion2b_s34b_b88k. It takes no softmax: no label depends on "
    "the scale",
    guide="dino-b16",
    propagate="lposs",
)

PEARL_PROTOCOL = dataclasses.replace(
    SCLIP_PROTOCOL,
    name="pearl",
    method="pearl",
    exceptions={
        **_WHOLE_VOC,
        "ade20k": {"hyperparameters": {"pearl.alpha_kk": "0.3"}},
        "cityscapes": {"hyperparameters": {"pearl.alpha_kk": "0.3", "tlp.grid": "224"}},
    },
    source="PGSmall/PEARL@c26062b, with its propagation",
    propagate="pearl",
)


def _resclip(threshold: float, rcs: tuple[float, float], sfr: tuple[float, float]) -> dict[str, str]:
    """Its constants of a data set: temp_thd; scale and share of earlier attention; of the first segmentation."""
    names = ("threshold", "rcs_scale", "rcs_share", "sfr_scale", "sfr_share")
    return {f"resclip.{name}": f"{x:g}" for name, x in zip(names, (threshold, *rcs, *sfr), strict=True)}


_RESCLIP = {
    "voc21": _resclip(0.50, (2, 0.3), (2.2, 0.7)),
    "context60": _resclip(0.30, (2, 0.3), (1.8, 0.7)),
    "coco-object": _resclip(0.11, (2, 0.4), (1.8, 0.7)),
    "voc20": _resclip(0.10, (2, 0.6), (2.1, 0.6)),
    "context59": _resclip(0.25, (2, 0.4), (1.8, 0.7)),
    "coco-stuff": _resclip(0.11, (2, 0.4), (1.8, 0.7)),
    "ade20k": _resclip(0.25, (2, 0.3), (2.1, 0.7)),
    "cityscapes": _resclip(0.10, (2, 0.2), (2.1, 0.6)),
}

RESCLIP_PROTOCOL = dataclasses.replace(
    SCLIP_PROTOCOL,
    name="resclip",
    method="resclip",
    exceptions={name: {"hyperparameters": own, **_WHOLE_VOC.get(name, {})} for name, own in _RESCLIP.items()},
    source="yvhangyang/ResCLIP@0e085f7, on NACLIP: its constants differ with the data set",
)

PROTOCOLS = {
    p.name: p
    for p in (
        DEFAULT_PROTOCOL,
        SCLIP_PROTOCOL,
        SCLIP_PAPER_PROTOCOL,
        SC_CLIP_PROTOCOL,
        MASKCLIP_PROTOCOL,
        CLIP_DIY_PROTOCOL,
        CORRCLIP_PROTOCOL,
        LPOSS_PROTOCOL,
        PEARL_PROTOCOL,
        RESCLIP_PROTOCOL,
    )
}


def protocol_name(text: str) -> str:
    """As it is listed: `sc_clip` is "sc-clip"."""
    return text.replace("_", "-")
