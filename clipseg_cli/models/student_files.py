"""A student on disk: weights as safetensors, and a JSON that says what they are. Reading runs no code."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from clipseg_cli.errors import ClipsegError, ModelError
from clipseg_cli.models.backbones import fingerprint
from clipseg_cli.models.student import Student, StudentShape
from clipseg_cli.types import ClassList
from clipseg_cli.utils.files import write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT = 1
WEIGHTS, CARD = "student.safetensors", "student.json"


@dataclass(frozen=True)
class StudentCard:
    """What somebody must know to use a student, beside its weights.

    Attributes:
        shape: what it was built as.
        classes: with the words it was trained with; its background is learnt where the weights hold one.
        templates: sentences around each word.
        mean, std: of pictures in [0, 1].
        short_side, long_side: pixels after the resize it was trained for.
        teacher: name, pretrained, fingerprint.
        training: facts for people: setting, unseen names, iterations, data set, mIoU ...
        versions: of the packages.
    """

    shape: StudentShape
    classes: ClassList
    templates: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    short_side: int
    long_side: int
    teacher: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def write_student(folder: Path, student: Student, card: StudentCard) -> list[Path]:
    """Write `student.safetensors` and `student.json` into a folder, each whole or not at all.

    Raises:
        OutputError: they cannot be written.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in student.state_dict().items()}
    return [
        write_bytes(folder / WEIGHTS, save(tensors)),
        write_json(folder / CARD, _to_json(card)),
    ]


def read_student(folder: Path, device: torch.device) -> tuple[Student, StudentCard]:
    """A student in eval mode and without gradients, and its card.

    Raises:
        ModelError: not there, damaged, of another version, or the two files do not fit each other.
    """
    card = read_card(folder)
    path = folder / WEIGHTS
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged or cut short ({error})") from error
    background = card.classes.background if "background" in tensors else None
    try:
        student = Student(
            card.shape,
            torch.zeros(len(card.classes.queries), card.shape.width),
            card.classes.query_to_class,
            background,
        )
        student.load_state_dict(tensors)
    except (ClipsegError, RuntimeError) as error:
        raise ModelError(f"{path}: {error}") from error
    return student.to(device).eval().requires_grad_(False), card


def read_card(folder: Path) -> StudentCard:
    """The card alone.

    Raises:
        ModelError: not there, damaged, or of another version.
    """
    path = folder / CARD
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    if data.get("format") != FORMAT:
        raise ModelError(f"{path} has format {data.get('format')}; this version reads {FORMAT}")
    try:
        return StudentCard(
            shape=StudentShape(**data["student"]),
            classes=ClassList(
                tuple(c["name"] for c in data["classes"]),
                tuple(tuple(c["words"]) for c in data["classes"]),
                data["background"],
            ),
            templates=tuple(data["templates"]),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            short_side=data["short_side"],
            long_side=data["long_side"],
            teacher=data["teacher"],
            training=data["training"],
            versions=data["versions"],
        )
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error


def student_fingerprint(student: Student) -> str:
    """16 hex digits over all weights, the shape, and which query speaks for which class."""
    return fingerprint(
        student, {**dataclasses.asdict(student.shape), "query_to_class": student.query_to_class}
    )


def _to_json(card: StudentCard) -> dict[str, Any]:
    classes = zip(card.classes.names, card.classes.aliases, strict=True)
    return {
        "format": FORMAT,
        "student": dataclasses.asdict(card.shape),
        "classes": [{"name": name, "words": list(words)} for name, words in classes],
        "background": card.classes.background,
        "templates": list(card.templates),
        "mean": list(card.mean),
        "std": list(card.std),
        "short_side": card.short_side,
        "long_side": card.long_side,
        "teacher": dict(card.teacher),
        "training": dict(card.training),
        "versions": dict(card.versions),
    }
