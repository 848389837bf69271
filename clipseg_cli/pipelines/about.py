"""What a run says about itself: the record beside its results, and what its user should be told once."""

from __future__ import annotations

import dataclasses
import difflib
import json
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import PIL

from clipseg_cli import __version__
from clipseg_cli.data.classes import benchmark_names
from clipseg_cli.types import RunInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clipseg_cli.config import SegmentConfig
    from clipseg_cli.pipelines.predict import Predictor
    from clipseg_cli.types import ClassList, DenseModel


def run_info(config: SegmentConfig, backbone: DenseModel, predictor: Predictor) -> RunInfo:
    """Options, weights, settings in force and versions, for `classes.json`."""
    model = {**describe_model(backbone, predictor), "settings": predictor.describe()}
    options = {key: value for key, value in dataclasses.asdict(config).items() if key != "images"}
    return RunInfo(predictor.classes, options, model, versions())


def describe_model(backbone: DenseModel, predictor: Predictor) -> dict[str, Any]:
    """Which weights, and in what precision they compute."""
    return {
        "name": backbone.name,
        "pretrained": backbone.pretrained,
        "fingerprint": backbone.fingerprint,
        "image_size": backbone.image_size,
        "precision": str(predictor.dtype).removeprefix("torch."),
    }


def versions() -> dict[str, str]:
    """Of what made a result, for people."""
    return {"python": platform.python_version(), **library_versions()}


def library_versions() -> dict[str, str]:
    """Of what may change a label: decoding, resizing, computing."""
    return {
        "clipseg": __version__,
        **{name: version(name) for name in ("torch", "open_clip_torch")},
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
    }


def model_notes(backbone: DenseModel, classes: ClassList) -> Iterator[str]:
    """Sentences about words that the model does not know."""
    if backbone.words is not None:
        # A model trained on a short list of words answers for other words too, without meaning.
        strange = [word for word in classes.queries if word.lower() not in backbone.words]
        if strange:
            listed = ", ".join(f"'{word}'" for word in strange[:5]) + (", ..." if len(strange) > 5 else "")
            yield f"the model '{backbone.name}' was never taught {listed}: what it labels so means little"


def notes(config: SegmentConfig, backbone: DenseModel, classes: ClassList) -> Iterator[str]:
    """Sentences about what is allowed but may not be meant."""
    yield from model_notes(backbone, classes)
    for near in difflib.get_close_matches(config.classes.strip().lower(), benchmark_names(), n=1, cutoff=0.8):
        if near != config.classes.strip():
            yield f"'{config.classes}' is taken as a word; the benchmark is called '{near}'"
    earlier = _earlier_names(config)
    if earlier is not None and earlier != list(classes.names):
        yield f"{config.out} holds results with other classes; classes.json will describe the new ones only"


def _earlier_names(config: SegmentConfig) -> list[str] | None:
    """Class names of the last run into the same folder, or None where there is no readable record."""
    try:
        record = json.loads((config.out / "classes.json").read_text(encoding="utf-8"))
        return [entry["name"] for entry in record["classes"]]
    except (OSError, ValueError, LookupError, TypeError):
        return None
