"""What the labels of a run depend on, and nothing else: equal identities give equal files."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import ignore_value
from clipseg_cli.inference.dataset import list_hash
from clipseg_cli.inference.hyperparameters import is_about_a_format
from clipseg_cli.outputs import class_table_rows
from clipseg_cli.runs.provenance import describe_model, library_versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipseg_cli.config import PseudolabelConfig
    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.types import Dataset, DenseModel, Sample


_ELSEWHERE = {
    "dataset",
    "benchmark",
    "split",
    "method",
    "device",
    "precision",
    "workers",
    "out",
    "name",
    "shard",
    "formats",
    "engine",
    "shard_size",
    "actors",
}
"""Options that change no label, or that stand elsewhere in the manifest."""


def run_identity(
    config: PseudolabelConfig,
    dataset: Dataset,
    backbone: DenseModel,
    predictor: Predictor,
    templates: Sequence[str],
    unseen: Sequence[int],
) -> dict[str, Any]:
    """For the manifest of a pseudo-label run.

    Left out is what changes no label: threads, shares, the folder. Batches are in, since they change rounding.
    """
    names = dataset.classes.names
    # As in runs that are older than these options.
    elsewhere = _ELSEWHERE | {name for name in ("keep_features", "compile") if not getattr(config, name)}
    return {
        "kind": "pseudolabel",
        "dataset": dataset_identity(dataset, dataset.samples),
        "method": config.method_name,
        "options": {
            **{key: value for key, value in dataclasses.asdict(config).items() if key not in elsewhere},
            "saliency": predictor.saliency_name,
            "hyperparameters": [text for text in config.hyperparameters if not is_about_a_format(text)],
            "unseen": [names[i] for i in unseen],
        },
        "model": {**describe_model(backbone, predictor), "device": predictor.device.type},
        "settings": predictor.describe(),
        "templates": {"count": len(templates), "sha256": templates_hash(templates)},
        "classes": class_table_rows(dataset.classes),
        "background": dataset.classes.background,
        "ignore": ignore_value(len(names)),
        "versions": library_versions(),
    }


def dataset_identity(dataset: Dataset, samples: Sequence[Sample]) -> dict[str, Any]:
    """Which images of which data set a run is about.

    Args:
        dataset: where they are.
        samples: those that the run uses, in their order.
    """
    return {
        "layout": dataset.name,
        "title": dataset.title,
        "root": dataset.where,
        "benchmark": dataset.benchmark,
        "split": dataset.split,
        "images": len(samples),
        "images_sha256": list_hash(samples),
    }


def templates_hash(templates: Sequence[str]) -> str:
    """SHA-256 of the sentences, in hex: a file of templates may change under the same name."""
    return hashlib.sha256("\n".join(templates).encode()).hexdigest()
