"""What a run says about itself: the record beside its results, and what its user should be told once."""

from __future__ import annotations

import dataclasses
import difflib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import PIL

from clipseg_cli import __version__
from clipseg_cli.config import BUNDLED_MODEL, NO_SALIENCY, OF_A_CLIP
from clipseg_cli.data.classes import benchmark_names, numbered_lines
from clipseg_cli.errors import ModelError
from clipseg_cli.models.clip.architectures import BUNDLED_TAG, bundled_file
from clipseg_cli.models.student.adapter import StudentModel
from clipseg_cli.types import RunInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.types import ClassList, DenseModel


_WHICH = {"images", "every", "skip_existing", "watch"}
"""Options that say which images are labelled, and not how."""


def run_info(config: InferenceConfig, backbone: DenseModel, predictor: Predictor) -> RunInfo:
    """Options, weights, settings in force and versions, for `classes.json`.

    Beside a student, options that only mean something for a CLIP are None, and so are words that it did without.
    """
    model = {**describe_model(backbone, predictor), "settings": predictor.describe()}
    options = {key: value for key, value in dataclasses.asdict(config).items() if key not in _WHICH}
    options |= {"method": config.method_name, "saliency": predictor.saliency_name}
    if isinstance(backbone, StudentModel):
        options |= dict.fromkeys(OF_A_CLIP)
        if not config.classes:
            options |= {"classes": None, "background": None}
    return RunInfo(predictor.classes, options, model, versions())


def describe_model(backbone: DenseModel, predictor: Predictor) -> dict[str, Any]:
    """Which weights, and in what precision they compute; of a student also where it lies and who taught it."""
    facts = {
        "name": backbone.name,
        "pretrained": backbone.pretrained,
        "fingerprint": backbone.fingerprint,
        "image_size": backbone.image_size,
        "precision": str(predictor.dtype).removeprefix("torch."),
    }
    if isinstance(backbone, StudentModel):
        facts |= {"path": str(Path(backbone.pretrained).resolve()), "teacher": dict(backbone.card.teacher)}
    return facts


def versions() -> dict[str, str]:
    """Versions of what made a result, for people."""
    return {"python": platform.python_version(), **library_versions()}


def library_versions() -> dict[str, str]:
    """Versions of what may change a label: decoding, resizing, computing."""
    return {
        "clipseg": __version__,
        **{name: version(name) for name in ("torch", "open_clip_torch")},
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
    }


def model_notes(backbone: DenseModel, classes: ClassList) -> Iterator[str]:
    """Sentences about words that the model does not know."""
    taught = _taught(backbone)
    if taught is not None:
        # A model trained on a short list of words answers for other words too, without meaning.
        strange = [word for word in classes.queries if word.lower() not in taught]
        if strange:
            listed = ", ".join(f"'{word}'" for word in strange[:5]) + (", ..." if len(strange) > 5 else "")
            near = _near(strange[:5], taught)
            yield f"the model '{backbone.name}' was never taught {listed}: what it labels so means little{near}"


def _near(strange: Sequence[str], taught: Iterable[str]) -> str:
    """As in "; did you mean 'sand' for 'sands'?"; empty where nothing is near."""
    known = sorted(taught)
    pairs = ((word, difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.8)) for word in strange)
    near = " or ".join(f"'{close[0]}' for '{word}'" for word, close in pairs if close)
    return f"; did you mean {near}?" if near else ""


def choice_notes(config: InferenceConfig, classes: ClassList) -> Iterator[str]:
    """A sentence about what was chosen for the user beside the method."""
    name = config.saliency_name(classes.background is not None)
    if name not in (config.saliency, NO_SALIENCY) and config.quality:
        yield (
            f"--quality {config.quality} takes --saliency {name}: words for ground, sky and the like lose to the "
            "background; --saliency none leaves that out"
        )
    elif name not in (config.saliency, NO_SALIENCY):
        yield f"--method {config.method_name} takes --saliency {name}, the head beside the tower of {config.model}"


def _taught(backbone: DenseModel) -> frozenset[str] | None:
    """The words that mean something to a model, in lower case; None where nobody can list them."""
    if not isinstance(backbone, StudentModel):
        return backbone.words
    teacher, own = backbone.card.teacher, backbone.card.classes.queries
    if (teacher.get("name"), teacher.get("pretrained")) != (BUNDLED_MODEL, BUNDLED_TAG):
        return None
    lines = numbered_lines(bundled_file("words.txt"), ModelError)
    return frozenset(word for _, word in lines).union(word.lower() for word in own)


def notes(config: InferenceConfig, backbone: DenseModel, classes: ClassList) -> Iterator[str]:
    """Sentences about what is allowed but may not be meant."""
    yield from model_notes(backbone, classes)
    yield from choice_notes(config, classes)
    for near in difflib.get_close_matches(config.classes.strip().lower(), benchmark_names(), n=1, cutoff=0.8):
        if near != config.classes.strip():
            yield f"'{config.classes}' is taken as a word; the benchmark is called '{near}'"
