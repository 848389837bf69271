"""Checkpoints of a training run: folders that appear whole, so that a run killed at any moment can go on.

    RUN/checkpoints/last-000200/    student.safetensors, student.json, optimiser.safetensors, state.json
    RUN/checkpoints/best-000150/    student.safetensors, student.json

Nothing random has to be kept: the order of the images and every crop follow from the seed and the number of the
iteration, so that number is the whole state of the sampler and of all generators.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save

from clipseg_cli.errors import ModelError, RunError
from clipseg_cli.inference.students import BEST, CHECKPOINTS, LAST, latest
from clipseg_cli.models.student.files import read_card, read_student, read_tensors, write_student
from clipseg_cli.utils.files import output_errors, write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from clipseg_cli.models.student.files import StudentCard
    from clipseg_cli.models.student.network import Student

OPTIMISER, STATE = "optimiser.safetensors", "state.json"
_ANEW = "start anew with another --name"


@dataclass(frozen=True)
class State:
    """Where a run is, beside its weights.

    Attributes:
        iteration: how many are done.
        best: the best mIoU on the way, in [0, 1]; None before the first validation.
        best_iteration: after how many iterations it was.
        padded: crops so far that were larger than their image.
        seconds: spent training so far.
        failures: image -> why it could not be learnt from or scored.
    """

    iteration: int = 0
    best: float | None = None
    best_iteration: int = 0
    padded: int = 0
    seconds: float = 0.0
    failures: Mapping[str, str] = field(default_factory=dict)


def save_last(
    run: Path, student: Student, card: StudentCard, optimiser: torch.optim.Optimizer, state: State
) -> None:
    """Keep everything that is needed to go on; the checkpoint before goes once this one is there.

    Raises:
        OutputError: it cannot be written; the one before stays.
    """
    with _replacing(run, LAST, state.iteration) as part:
        write_student(part, student, card)
        write_bytes(part / OPTIMISER, save(_buffers(student, optimiser)))
        write_json(part / STATE, asdict(state))


def save_best(run: Path, student: Student, card: StudentCard, iteration: int) -> None:
    """Keep the student that scored best so far.

    Raises:
        OutputError: it cannot be written; the one before stays.
    """
    with _replacing(run, BEST, iteration) as part:
        write_student(part, student, card)


def restore(run: Path, student: Student, optimiser: torch.optim.Optimizer, card: StudentCard) -> State | None:
    """Bring student and optimiser to where the run is; None where there is no checkpoint yet.

    Args:
        run: its folder.
        student, optimiser: changed in place.
        card: of the student; that of the checkpoint must have the same classes.

    Raises:
        RunError: a checkpoint is damaged, or not of this student.
    """
    folder = latest(run, LAST) or max((run / CHECKPOINTS).glob(f"{LAST}-*"), default=None)
    if folder is None:
        return None
    try:
        if read_card(folder).classes != card.classes:
            raise ValueError("it is a checkpoint of another class list")
        saved, found = read_student(folder, torch.device("cpu"))
        weights = saved.state_dict()
        if found.shape != card.shape or weights.keys() != student.state_dict().keys():
            raise ValueError("it is a checkpoint of another network")
        buffers = read_tensors(folder / OPTIMISER)
        state = _read_state(folder)
        parameters = dict(student.named_parameters())
        for key, buffer in buffers.items():
            name = key.partition("/")[2]
            if name not in parameters or (buffer.ndim and buffer.shape != parameters[name].shape):
                raise ValueError(f"{OPTIMISER} holds the unexpected {key} {list(buffer.shape)}")
        student.load_state_dict(weights)
        for key, buffer in buffers.items():
            kind, _, name = key.partition("/")
            optimiser.state[parameters[name]][kind] = _laid_out_as(parameters[name], buffer)
    except ModelError as error:  # which names the folder too
        why = error.message.replace(f"{folder}/", "").removeprefix(f"{folder} holds no student: ")
        raise RunError(f"{folder} cannot be resumed: {why}", hint=_ANEW) from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{folder} cannot be resumed: {error}", hint=_ANEW) from error
    return state


def _laid_out_as(parameter: Tensor, buffer: Tensor) -> Tensor:
    """What an optimiser remembers of a parameter, on its device and in its order; or its count of steps.

    A fused optimiser walks through both as they lie in memory and does not look whether they lie alike.
    """
    if not buffer.ndim:
        return buffer.to(parameter)
    return torch.empty_like(parameter, requires_grad=False).copy_(buffer)


def _read_state(folder: Path) -> State:
    """What `save_last` wrote; ValueError or TypeError where it is something else."""
    try:
        written = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{STATE} is missing") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{STATE} is damaged or cut short") from error
    if not isinstance(written, dict) or not written.keys() <= {one.name for one in fields(State)}:
        raise ValueError(f"{STATE} does not say where this run is")
    state = State(**written)
    counts = (state.iteration, state.best_iteration, state.padded)
    numbers = (state.seconds, 0.0 if state.best is None else state.best)
    if (
        any(type(value) is not int for value in counts)
        or any(not isinstance(value, (int, float)) for value in numbers)
        or not isinstance(state.failures, dict)
        or folder.name != _name(LAST, state.iteration)
    ):
        raise ValueError(f"{STATE} does not say where this run is")
    return state


def forget_later(run: Path, iteration: int) -> None:
    """Remove a best checkpoint that lies behind the one that a run goes on from: it will come again."""
    for path in (run / CHECKPOINTS).glob(f"{BEST}-*"):
        if path.name > _name(BEST, iteration):
            shutil.rmtree(path, ignore_errors=True)


def _buffers(student: Student, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers of each parameter, as in "momentum_buffer/backbone.conv1.weight"."""
    return {
        f"{kind}/{name}": value.detach().cpu().contiguous()
        for name, parameter in student.named_parameters()
        for kind, value in optimiser.state.get(parameter, {}).items()
        if value is not None
    }


@contextmanager
def _replacing(run: Path, kind: str, iteration: int) -> Iterator[Path]:
    """A folder to fill, which becomes the checkpoint of that iteration and takes the place of older ones."""
    part, folder = run / CHECKPOINTS / f".{kind}.part", run / CHECKPOINTS / _name(kind, iteration)
    with output_errors(part):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    yield part
    with output_errors(folder):
        if folder.exists():  # a best one that comes again
            shutil.rmtree(folder)
        part.rename(folder)
    for older in folder.parent.glob(f"{kind}-*"):
        if older != folder:
            shutil.rmtree(older, ignore_errors=True)


def _name(kind: str, iteration: int) -> str:
    return f"{kind}-{iteration:07d}"
