"""What `clipseg convert` needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  (Typer needs it at run time)

from clipseg_cli.config.inference import InferenceConfig
from clipseg_cli.config.options import (
    INFERENCE,
    MAIN,
    OUTPUT,
    WORDS,
    again,
    formats_option,
    option,
    out_option,
)
from clipseg_cli.config.segment import SegmentConfig


@dataclass(frozen=True)
class ConvertConfig:
    """Label maps that are there, in other formats.

    An `out` of None is the folder that holds them.
    """

    labels: str = option("", "A run of pseudolabel, a folder of segment, or any folder of label PNGs.")
    formats: str = formats_option(
        "",
        "What is written, by comma: coco, labelme, yolo-seg, ...; clipseg models --formats lists all.",
        MAIN,
    )
    out: Path | None = out_option(None, "Folder for everything written. Default: beside the labels.")
    images: str = option(
        "",
        "Folder of the images, where nothing else says where they are.",
        panel=MAIN,
        metavar="DIR",
    )
    min_area: int = again(SegmentConfig, "min_area", panel=OUTPUT)
    classes: str = option(
        "",
        "What the values in label PNGs of other tools mean, from 0: sky,cat,dog, a text file, or a benchmark.",
        panel=WORDS,
        metavar="LIST",
        flags=("--classes", "-c"),
        kind="classes",
    )
    hyperparameters: tuple[str, ...] = again(
        InferenceConfig,
        "hyperparameters",
        help="An option of a format: yolo-seg.val=0.2, labelme.polygons=false. Repeat for more.",
        panel=OUTPUT,
    )
    workers: int = again(InferenceConfig, "workers", help="Threads that read and write.", panel=INFERENCE)
