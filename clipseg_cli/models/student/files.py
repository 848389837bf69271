"""A student on disk: weights as safetensors, and a JSON that says what they are. Reading runs no code.

Nothing in the JSON is taken for a path or an address: its backbone is looked up by name, and a network is only
built after its weights, name by name and shape by shape, are known to be there.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from clipseg_cli.config import Head
from clipseg_cli.errors import ClipsegError, ModelError
from clipseg_cli.models.clip.architectures import SkipInit
from clipseg_cli.models.student.network import Student, StudentShape
from clipseg_cli.models.weights.fingerprints import fingerprint
from clipseg_cli.models.weights.fitting import check_weights
from clipseg_cli.types import ClassList
from clipseg_cli.utils.files import write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

T = TypeVar("T")

FORMAT = 1
WEIGHTS, CARD = "student.safetensors", "student.json"

OTHER_CHECKPOINT = "take another checkpoint of the run, if it has one"
BOTH_FILES = f"{WEIGHTS} and {CARD} of one checkpoint belong together"


@dataclass(frozen=True)
class StudentCard:
    """What somebody must know to use a student, beside its weights.

    Attributes:
        shape: what it was built as.
        classes: with the words it was trained with; its background is learnt if the weights hold one.
        templates: sentences around each word.
        mean, std: of images in [0, 1].
        short_side, long_side: pixels after the resize it was trained for; a short side of 0 keeps the
            image's own size.
        teacher: name, pretrained and fingerprint of the CLIP that its words come from.
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
    teacher: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def write_student(folder: Path, student: Student, card: StudentCard) -> list[Path]:
    """Write `student.safetensors`, then `student.json`, each whole or not at all.

    Where the JSON lies in a folder that was new, the weights lie there too.

    Raises:
        OutputError: they cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in student.state_dict().items()}
    return [write_bytes(folder / WEIGHTS, save(tensors)), write_json(folder / CARD, _to_json(card))]


def read_student(folder: Path, device: torch.device) -> tuple[Student, StudentCard]:
    """A student in eval mode and without gradients, and its card.

    Raises:
        ModelError: no such folder or file, damaged, of another format, or the two files do not fit each other.
    """
    card = read_card(folder)
    path = folder / WEIGHTS
    tensors = read_tensors(path)
    with torch.random.fork_rng(devices=[]):  # a run that goes on keeps its random numbers
        with torch.device("meta"):  # takes no memory, whatever sizes the JSON asks for
            expected = _build(folder / CARD, card, learnt="background" in tensors).state_dict()
        check_weights(expected, tensors, source=str(path), name=CARD, hint=lambda: BOTH_FILES, same_type=True)
        student = _build(folder / CARD, card, learnt="background" in tensors)
    student.load_state_dict(tensors)
    return student.to(device).eval().requires_grad_(False), card


def read_card(folder: Path) -> StudentCard:
    """The card alone, which takes no time.

    Raises:
        ModelError: no such folder or file, damaged, or of another format.
    """
    path = folder / CARD
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder", hint=f"a student is a folder with {WEIGHTS} and {CARD}")
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{folder} holds no student: {CARD} is missing") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: it is not JSON ({error})", hint=OTHER_CHECKPOINT) from error
    found = data.get("format") if isinstance(data, dict) else None
    if type(found) is int and found != FORMAT:
        raise ModelError(
            f"{path} has format {found}; this version of clipseg reads format {FORMAT}",
            hint="use the version that wrote it" + (", or a newer one" if found > FORMAT else ""),
        )
    try:
        if type(found) is not int:
            raise ValueError("it has no format")
        return _from_json(data)
    except KeyError as error:
        raise ModelError(f"{path} is damaged: it has no {error}", hint=OTHER_CHECKPOINT) from error
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}", hint=OTHER_CHECKPOINT) from error


def student_fingerprint(student: Student) -> str:
    """16 hex digits over all weights, the shape, and which query speaks for which class."""
    config = {**dataclasses.asdict(student.shape), "query_to_class": student.query_to_class}
    return fingerprint(student, config)


def _build(path: Path, card: StudentCard, *, learnt: bool) -> Student:
    """The network that a card describes, before its weights are read."""
    words = torch.zeros(len(card.classes.queries), card.shape.width)
    background = card.classes.background if learnt else None
    try:
        with SkipInit():
            return Student(card.shape, words, card.classes.query_to_class, background)
    except ClipsegError as error:
        raise ModelError(f"{path}: {error.message}", hint=error.hint) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of a checkpoint.

    Raises:
        ModelError: it is missing, unreadable or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} holds no student: {path.name} is missing") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged or cut short ({error})", hint=OTHER_CHECKPOINT) from error


def _to_json(card: StudentCard) -> dict[str, Any]:
    facts = dataclasses.asdict(card)
    shape, classes = facts.pop("shape"), facts.pop("classes")
    entries = zip(classes["names"], classes["aliases"], strict=True)
    return {
        "format": FORMAT,
        "student": shape,
        "classes": [{"name": name, "words": words} for name, words in entries],
        "background": classes["background"],
        **facts,
    }


def _from_json(data: Mapping[str, Any]) -> StudentCard:
    """The card; KeyError or ValueError where it is not one."""
    shape, background = _table(data, "student"), data["background"]
    classes = _list(data, "classes", lambda c: isinstance(c, dict) and isinstance(c.get("name"), str))
    aliases = tuple(_list(c, "words", lambda word: isinstance(word, str)) for c in classes)
    _require(all(aliases), "classes")
    _require(background is None or (type(background) is int and 0 <= background < len(classes)), "background")
    _require(shape["head"] in get_args(Head), "head")
    teacher = _table(data, "teacher")
    for key in ("name", "pretrained", "fingerprint"):
        _text(teacher, key)
    return StudentCard(
        shape=StudentShape(
            backbone=_text(shape, "backbone"),
            head=shape["head"],
            width=_count(shape, "width", 1),
            normalise=_flag(shape, "normalise"),
            centre=_flag(shape, "centre"),
            output_stride=_count(shape, "output_stride", 1),
        ),
        classes=ClassList(tuple(c["name"] for c in classes), aliases, background),
        templates=_list(data, "templates", lambda template: isinstance(template, str)),
        mean=_channels(data, "mean", lambda number: True),
        std=_channels(data, "std", lambda number: number > 0),
        short_side=_count(data, "short_side", 0),
        long_side=_count(data, "long_side", 0),
        teacher=teacher,
        training=_table(data, "training"),
        versions=_table(data, "versions"),
    )


def _require(holds: bool, key: str) -> None:
    if not holds:
        raise ValueError(f"its '{key}' is not what it should be")


def _text(data: Mapping[str, Any], key: str) -> str:
    _require(isinstance(data[key], str), key)
    return str(data[key])


def _flag(data: Mapping[str, Any], key: str) -> bool:
    _require(isinstance(data[key], bool), key)
    return bool(data[key])


def _count(data: Mapping[str, Any], key: str, least: int) -> int:
    _require(type(data[key]) is int and least <= data[key] < 2**31, key)
    return int(data[key])


def _table(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    _require(isinstance(data[key], dict), key)
    return dict(data[key])


def _list(data: Mapping[str, Any], key: str, fits: Callable[[Any], bool]) -> tuple[Any, ...]:
    _require(isinstance(data[key], list) and len(data[key]) > 0 and all(map(fits, data[key])), key)
    return tuple(data[key])


def _channels(data: Mapping[str, Any], key: str, fits: Callable[[float], bool]) -> tuple[float, float, float]:
    numbers = _list(data, key, lambda n: type(n) in (int, float) and abs(n) < 1000 and fits(n))
    _require(len(numbers) == 3, key)
    return (float(numbers[0]), float(numbers[1]), float(numbers[2]))
