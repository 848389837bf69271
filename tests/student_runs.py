"""Students with random weights beside the tiny CLIP, and `clipseg segment --student` with them.

A test file imports the fixtures that it uses; their names are `teacher`, `students_of`, `run`, `photo` and `segment`.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipseg_cli.inference import students
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.clip.text_classifier import embed_words
from clipseg_cli.models.student.files import StudentCard, write_student
from clipseg_cli.models.student.network import Student, StudentShape
from clipseg_cli.types import ClassList

CLASSES = ClassList(("background", "cat", "dog"), (("background",), ("cat",), ("dog", "puppy")), background=0)
CPU = torch.device("cpu")


def teacher_of(backbone) -> dict[str, str]:
    return {key: getattr(backbone, key) for key in ("name", "pretrained", "fingerprint")}


def write(folder: Path, backbone, *, learnt=True, classes=CLASSES, seed=0, **changes) -> Path:
    """A student with random weights, and the words of its teacher, as `clipseg train` leaves it."""
    prompts = [[f"a photo of a {word}."] for word in classes.queries]
    text = embed_words(
        backbone.model, backbone.tokenizer, prompts, fingerprint=backbone.fingerprint, device=CPU
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = StudentShape("resnet10t", "deeplabv2", text.shape[1])
        student = Student(shape, text, classes.query_to_class, classes.background if learnt else None)
        with torch.no_grad():  # at first all features are nearly equal
            for layer in student.head.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.weight.mul_(50)
    card = StudentCard(
        shape=shape,
        classes=classes,
        templates=("a photo of a {}.",),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        short_side=48,
        long_side=96,
        teacher=teacher_of(backbone),
        training={"setting": "annotation-free"},
    )
    write_student(folder, student, replace(card, **changes))
    return folder


@pytest.fixture(scope="module", name="teacher")
def tiny_teacher(tiny_clip):
    return load_backbone(tiny_clip.name, str(tiny_clip.weights), CPU)


@pytest.fixture(scope="module", name="students_of")
def students_of_teacher(tmp_path_factory, teacher):
    """Two runs: one with a learnt background, one with the word."""
    folder = tmp_path_factory.mktemp("runs")
    for name, learnt in (("learnt", True), ("worded", False)):
        write(folder / name / "checkpoints" / "last-000010", teacher, learnt=learnt)
    return folder


@pytest.fixture(name="run")
def student_run(students_of, tmp_path) -> Path:
    """A run of one's own, to be spoilt."""
    return Path(shutil.copytree(students_of / "learnt", tmp_path / "run"))


@pytest.fixture(name="photo")
def one_photo(tmp_path, make_image) -> Path:
    return make_image(tmp_path / "photo.png", 60, 90, seed=4)


@pytest.fixture(name="segment")
def segment_command(cli, photo, tmp_path):
    """Run `clipseg segment photo.png --student RUN ...`, into an empty folder each time."""

    def run(student, *args):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        return cli(
            "segment", photo, "--student", student, "--device", "cpu", "--out", tmp_path / "out", *args
        )

    return run


def record(tmp_path) -> dict:
    return json.loads((tmp_path / "out" / "classes.json").read_text())


def labels(tmp_path) -> np.ndarray:
    with Image.open(tmp_path / "out" / "photo.png") as image:
        return np.asarray(image)


def no_text_tower(monkeypatch) -> None:
    def refuse(*args):
        raise AssertionError("the text tower was loaded")

    monkeypatch.setattr(students, "load_backbone", refuse)
