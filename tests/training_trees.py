"""Training in a second: a VOC tree of coloured blocks, pseudo-label runs over it, and runs of few iterations.

A test file imports the fixtures that it uses; their names are `tree`, `label_run`, `seen_run`, `teach` and `taught`.
Trees and runs are made once a session and stay as they are; a test that changes one takes a copy (`copy_tree`,
`copy_run`).
"""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from dataset_trees import make_voc
from PIL import Image

from clipseg_cli.commands import train as train_command
from clipseg_cli.commands.pseudolabel import open_run
from clipseg_cli.commands.train import open_training
from clipseg_cli.config import PseudolabelConfig, TrainConfig
from clipseg_cli.runs.manifest import Manifest, read_manifest, write_manifest
from clipseg_cli.training.log import Step, Validation

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import TinyClip

    from clipseg_cli.models.student.network import Student
    from clipseg_cli.training.loop import TrainingRun

SIZE = (48, 64)
"""(H, W) of every picture."""

TRAIN = tuple(f"2012_{number:06}" for number in range(6))
VAL = ("2012_000090", "2012_000091")

BACKGROUND, DOG, SHEEP, TV = 0, 12, 17, 20
COLOURS = {BACKGROUND: (40, 90, 40), DOG: (200, 120, 40), SHEEP: (230, 230, 230), TV: (30, 30, 160)}
"""A class is told by its colour alone, so that a student can learn it within some iterations."""

UNSEEN = (SHEEP, TV)
UNSEEN_NAMES = "sheep,tvmonitor"

WORDS = (
    *("--preset", "quick", "--backbone", "resnet10t", "--init", "none", "--crop", "32", "--batch-size", "2"),
    *("--iterations", "4", "--guided", "2", "--validate-every", "0", "--workers", "1", "--device", "cpu"),
)
"""The short training of `teach`, as words for the command line."""

_SHORT: dict[str, Any] = {
    "preset": "quick",
    "backbone": "resnet10t",
    "init": "none",
    "crop": 32,
    "batch_size": 2,
    "iterations": 4,
    "guided": 2,
    "validate_every": 0,
    "workers": 1,
    "device": "cpu",
}


@dataclass(frozen=True)
class Taught:
    """A finished training, with what it yielded."""

    run: TrainingRun
    steps: tuple[Step, ...]
    validations: tuple[Validation, ...]

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.run.student.state_dict().items()}

    def equals(self, other: Taught) -> bool:
        """Whether losses and weights are the same to the last bit."""
        ours, theirs = self.weights, other.weights
        return (
            self.losses == other.losses
            and ours.keys() == theirs.keys()
            and all(ours[name].equal(theirs[name]) for name in ours)
        )


def make_training_tree(root: Path, train: int = len(TRAIN)) -> Path:
    """VOC with blocks of dog, sheep and tvmonitor on background in every picture, and a border that is ignored."""
    names = {"train": TRAIN[:train], "val": VAL}
    make_voc(root, names=names)
    for seed, name in enumerate((*names["train"], *VAL)):
        rng = np.random.default_rng(seed)
        labels = blocks(rng)
        pixels = np.array([COLOURS[i] for i in range(256) if i in COLOURS])[
            np.searchsorted(sorted(COLOURS), np.where(labels == 255, BACKGROUND, labels))
        ]
        noisy = np.clip(pixels + rng.integers(-12, 13, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        write_truth(root, name, labels)
    return root


def blocks(rng: np.random.Generator) -> np.ndarray:
    """uint8 label map of a picture: three blocks at random places, each in a third of its own."""
    labels = np.zeros(SIZE, np.uint8)
    labels[0] = 255
    for column, class_id in enumerate(rng.permutation((DOG, SHEEP, TV))):
        top, left = int(rng.integers(2, 16)), 2 + 21 * column
        labels[top : top + int(rng.integers(16, 30)), left : left + 17] = class_id
    return labels


def truth_path(root: Path, name: str) -> Path:
    """Where the ground truth of a picture lies."""
    return root / "SegmentationClass" / f"{name}.png"


def read_truth(root: Path, name: str) -> np.ndarray:
    """uint8 label map as it stands in the file."""
    with Image.open(truth_path(root, name)) as image:
        return np.array(image)


def write_truth(root: Path, name: str, labels: np.ndarray) -> None:
    """Write the ground truth of a picture anew."""
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
    image.save(truth_path(root, name))


def label(tiny: TinyClip, dataset: Path, out: Path, **options: Any) -> Path:
    """Folder of a finished pseudo-label run `out/labels` by the tiny CLIP."""
    config = PseudolabelConfig(
        **{
            "dataset": str(dataset),
            "model": tiny.name,
            "pretrained": str(tiny.weights),
            "templates": "single",
            "device": "cpu",
            "out": out,
            "name": "labels",
            **options,
        }
    )
    with open_run(config) as run:
        assert all(not record.error for record in run)
        run.finish()
        return run.folder


def short_config(**options: Any) -> TrainConfig:
    """Four iterations of two crops of 32 pixels, guided for two; options are fields of `TrainConfig`."""
    return TrainConfig(**{**_SHORT, **options})


def compute_in_double(put: Callable[[Any, str, Any], None]) -> None:
    """Let students learn in double precision: runs that sum in another order then differ in the last digits alone.

    Args:
        put: `setattr`, or that of a monkeypatch.
    """
    build, single, here = train_command.build_student, torch.Tensor.float, threading.get_ident()

    def build_double(*args: Any) -> tuple[Student, str]:
        student, init = build(*args)
        student.double().backbone.register_forward_pre_hook(lambda _, images: images[0].double())

        def wide(tensor: torch.Tensor) -> torch.Tensor:
            learning = student.training and threading.get_ident() == here  # crops are cut in other threads
            return tensor.double() if learning else single(tensor)

        put(torch.Tensor, "float", wide)
        return student, init

    put(train_command, "build_student", build_double)


def train(config: TrainConfig) -> Taught:
    """Train in this process, to the end."""
    steps, validations = [], []
    with open_training(config) as run:
        for event in run:
            (steps if isinstance(event, Step) else validations).append(event)
        return Taught(run, tuple(steps), tuple(validations))


def teacher_options(tiny: TinyClip, dataset: Path) -> dict[str, Any]:
    """Fields of `TrainConfig` that let the tiny CLIP label crops of a data set."""
    return {
        "teacher": True,
        "dataset": str(dataset),
        "model": tiny.name,
        "pretrained": str(tiny.weights),
        "templates": "single",
    }


def copy_tree(tree: Path, root: Path) -> Path:
    """A data set to change, elsewhere."""
    return Path(shutil.copytree(tree, root))


def copy_run(run: Path, folder: Path, dataset: Path | None = None) -> Path:
    """A run to change, elsewhere; of a copy of its data set where that is given."""
    shutil.copytree(run, folder)
    if dataset is not None:
        edit_manifest(folder, dataset={"root": str(dataset.resolve())})
    return folder


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Change entries of a run's manifest and leave it valid; a mapping changes single entries below its name."""
    manifest = read_manifest(folder)
    assert manifest is not None
    identity = dict(manifest.identity)
    for key, value in changes.items():
        identity[key] = {**identity[key], **value} if isinstance(value, dict) else value
    write_manifest(Manifest(identity, manifest.result), folder)


@lru_cache(maxsize=1)
def _tree(base: Path) -> Path:
    return make_training_tree(base / "training" / "voc")


@lru_cache(maxsize=2)
def _run(base: Path, tiny: TinyClip, *, keep: bool) -> Path:
    options = {"keep_labels": "seen", "unseen": UNSEEN_NAMES} if keep else {}
    return label(tiny, _tree(base), base / "training" / ("seen" if keep else "free"), **options)


@pytest.fixture(scope="session", name="tree")
def session_tree(tmp_path_factory) -> Path:
    """The data set of most tests: six pictures to train on, two to score on."""
    return _tree(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session", name="label_run")
def free_run(tmp_path_factory, tiny_clip) -> Path:
    """A pseudo-label run over `tree` in the annotation-free setting."""
    return _run(tmp_path_factory.getbasetemp(), tiny_clip, keep=False)


@pytest.fixture(scope="session", name="seen_run")
def zero_shot_run(tmp_path_factory, tiny_clip) -> Path:
    """A pseudo-label run over `tree` that keeps all ground truth but that of sheep and tvmonitor."""
    return _run(tmp_path_factory.getbasetemp(), tiny_clip, keep=True)


@pytest.fixture(name="teach")
def short_training(tmp_path) -> Callable[..., Taught]:
    """`teach(labels=str(label_run))` trains shortly, in a folder of its own, with any field of `TrainConfig`."""
    made: list[str] = []

    def run(**options: Any) -> Taught:
        made.append(f"run{len(made)}")
        return train(short_config(**{"out": tmp_path / "out", "name": made[-1], **options}))

    return run


@pytest.fixture(scope="session", name="taught")
def finished_training(tmp_path_factory, label_run) -> Taught:
    """A short training from `label_run`, to look at."""
    return _taught(tmp_path_factory.getbasetemp(), label_run)


@lru_cache(maxsize=1)
def _taught(base: Path, run: Path) -> Taught:
    return train(short_config(labels=str(run), out=base / "training" / "out", name="run"))
